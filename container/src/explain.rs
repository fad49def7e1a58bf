//! `wharf explain CODE`.

use std::process::ExitCode;

use wharf_kernel::refusal::Code;

use crate::cli::{ExplainArgs, Global};
use crate::failure::Failure;
use crate::out;

/// Prints what a code means and what to do; without a code, all codes.
pub(crate) fn explain(global: &Global, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let codes = match &args.code {
        None => Code::ALL.to_vec(),
        Some(text) => {
            let unknown = || Failure::usage(format!("there is no error code '{text}'; 'wharf explain' lists them all"));
            vec![Code::parse(text).ok_or_else(unknown)?]
        }
    };
    if global.json {
        let all: Vec<_> = codes.iter().map(|c| json(*c)).collect();
        out::print_line(format_args!("{:#}", if args.code.is_some() { all[0].clone() } else { all.into() }))?;
    } else if args.code.is_some() {
        out::print_line(text(codes[0]))?;
    } else {
        let lines: Vec<String> = codes.iter().map(|c| format!("{c}  {}", c.title())).collect();
        out::print_line(lines.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(code: Code) -> String {
    let body: Vec<&str> = code.explanation().lines().map(str::trim).collect();
    format!("{code} at {}: {}\n\n{}\n\nDo this: {}.", code.stage(), code.title(), body.join("\n").trim(), code.fix())
}

fn json(code: Code) -> serde_json::Value {
    let body: Vec<&str> = code.explanation().lines().map(str::trim).collect();
    serde_json::json!({
        "code": code.as_str(),
        "stage": code.stage(),
        "title": code.title(),
        "explanation": body.join(" "),
        "fix": code.fix(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            let text = text(*code);
            assert!(text.lines().count() >= 5, "{text}");
            assert!(
                !code.explanation().trim().is_empty() && !code.title().is_empty() && !code.fix().is_empty(),
                "{code}"
            );
            assert_eq!(Code::parse(&code.as_str().to_lowercase()), Some(*code));
        }
    }

    #[test]
    fn an_unknown_code_is_a_usage_error() {
        let args = ExplainArgs { code: Some("W9999".into()) };
        assert_eq!(explain(&Global::default(), &args).unwrap_err().code(), 2);
    }
}
