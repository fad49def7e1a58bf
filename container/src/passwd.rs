//! `wharf passwd`: the users file of a realm. The password never comes from the command line, where others could read it.

use std::io::{BufRead, IsTerminal, stdin};
use std::process::ExitCode;

use wharf_realm::users::Users;

use crate::cli::{Global, PasswdArgs};
use crate::failure::Failure;
use crate::out;

/// Sets a password, removes a user or lists all.
pub(crate) fn passwd(global: &Global, args: &PasswdArgs) -> Result<ExitCode, Failure> {
    let path = &args.file;
    let there = path.try_exists().map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    let mut users = match there {
        true => Users::read(path).map_err(Failure::failed)?,
        false if args.list || args.delete => {
            return Err(Failure::failed(format!("{}: there is no such file", path.display())));
        }
        false => Users::default(),
    };
    let Some(user) = &args.user else {
        if global.json {
            let all: Vec<_> =
                users.list().map(|(name, roles)| serde_json::json!({ "user": name, "roles": roles })).collect();
            out::print_line(format_args!("{:#}", serde_json::Value::from(all)))?;
        } else {
            for (name, roles) in users.list() {
                out::print_line(format_args!("{name}  {}", roles.join(",")))?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    if args.delete {
        if !users.remove(user) {
            return Err(Failure::failed(format!("{}: there is no user '{}'", path.display(), user.escape_debug())));
        }
    } else {
        let password = password(user)?;
        let roles = (!args.role.is_empty()).then(|| args.role.clone());
        users.set(user, password.as_bytes(), roles).map_err(Failure::failed)?;
    }
    users.write(path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn password(user: &str) -> Result<String, Failure> {
    if !stdin().is_terminal() {
        let mut line = String::new();
        stdin().lock().read_line(&mut line).map_err(Failure::failed)?;
        return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    let first = rpassword::prompt_password(format!("Password for {user}: ")).map_err(Failure::failed)?;
    let again = rpassword::prompt_password("Again: ").map_err(Failure::failed)?;
    if first == again { Ok(first) } else { Err(Failure::failed("the passwords are not the same")) }
}
