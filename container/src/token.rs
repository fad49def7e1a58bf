//! `wharf token`: makes a token for the admin API.

use std::fmt::Write as _;
use std::process::ExitCode;

use sha2::{Digest, Sha256};

use crate::cli::{Global, TokenArgs};
use crate::failure::Failure;
use crate::out;

/// Makes a token of 256 random bits, and shows it with what the configuration needs: the token is nowhere else.
pub(crate) fn token(global: &Global, args: &TokenArgs) -> Result<ExitCode, Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| Failure::failed(format!("no random numbers: {e}")))?;
    let token = format!("wharf_{}", hex(&random));
    let sha256 = hex(&Sha256::digest(&token));
    let role = args.role.as_str();
    if global.json {
        let all = serde_json::json!({ "name": args.name, "role": role, "token": token, "sha256": sha256 });
        out::print_line(format_args!("{all:#}"))?;
    } else {
        let name = toml::Value::from(args.name.as_str());
        out::print_line(format_args!("{token}\n"))?;
        out::print_line(format_args!("Keep it: it is shown this once. For wharf.toml, which has its digest alone:\n"))?;
        out::print_line(format_args!("[[admin.token]]\nname = {name}\nrole = \"{role}\"\nsha256 = \"{sha256}\""))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
