//! Standard output of the commands. A reader that has seen enough (`wharf list | head -1`) is no failure.

use std::fmt::Display;
use std::io::{self, Write};

use crate::failure::Failure;

/// Prints `text` as it is.
///
/// # Errors
/// When it can't be written, as on a full disk. A reader that is gone is none.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    print_to(&mut io::stdout().lock(), text).map_err(|e| Failure::failed(format!("standard output: {e}")))
}

/// The same with a line feed at its end.
pub(crate) fn print_line(text: impl Display) -> Result<(), Failure> {
    print(format_args!("{text}\n"))
}

fn print_to(out: &mut impl Write, text: impl Display) -> io::Result<()> {
    // In one piece: formatting into the pipe would write every part by itself.
    match out.write_all(text.to_string().as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_that_is_gone_is_forgiven() {
        assert!(print_to(&mut Fails(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(print_to(&mut Fails(io::ErrorKind::StorageFull), "x").is_err());
    }
}
