//! Why something was refused: a code that `wharf explain` knows, what was found, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The stage of a deployment at which something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Reading names and side-car files.
    Found,
    /// Reading the file itself.
    Probe,
    /// The trial in a child process.
    Trial,
    /// Loading into the container.
    Load,
    /// Comparing layouts.
    Layout,
    /// The application's own start.
    Start,
    /// The health check before traffic moves.
    Health,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Found => "found",
            Self::Probe => "probe",
            Self::Trial => "trial",
            Self::Load => "load",
            Self::Layout => "layout",
            Self::Start => "start",
            Self::Health => "health",
        })
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $stage:ident, $title:literal, $fix:literal;)*) => {
        /// Every error code there is. The text is what `wharf explain CODE` prints.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[doc = $doc])* #[serde(rename = $code)] $name,)* }

        impl Code {
            /// All codes in order.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as printed, `W0101`.
            pub const fn as_str(self) -> &'static str { match self { $(Code::$name => $code,)* } }

            /// The stage it belongs to.
            pub const fn stage(self) -> Stage { match self { $(Code::$name => Stage::$stage,)* } }

            /// One line saying what it is.
            pub const fn title(self) -> &'static str { match self { $(Code::$name => $title,)* } }

            /// What to do about it.
            pub const fn fix(self) -> &'static str { match self { $(Code::$name => $fix,)* } }

            /// A few sentences about it.
            pub fn explanation(self) -> &'static str { match self { $(Code::$name => concat!($($doc, "\n"),*),)* } }
        }
    };
}

codes! {
    /// The file or folder name can't be turned into a context path, or the context path in its side-car file is not a valid one.
    BadName = "W0101", Found, "the name is not a valid application name", "rename the file: 'shop.so' is /shop, 'ROOT.so' is /, 'a#b.so' is /a/b, 'shop##2.so' is version 2";
    /// A folder in the deploy directory is an application only when it has an `app.toml`.
    NoAppToml = "W0102", Found, "the folder has no app.toml", "add an app.toml with at least: kind = \"static\" or kind = \"module\"";
    /// The side-car file or `app.toml` can't be read: the message has line and column.
    BadAppToml = "W0103", Found, "the application's TOML file is not valid", "correct the line shown";
    /// Symbolic links, FIFOs, sockets and devices are not deployed: what they point to can change or block without notice.
    NotRegular = "W0104", Found, "not a regular file", "copy the file itself into the deploy directory";
    /// Two files or folders want the same host, context path and version.
    Duplicate = "W0105", Found, "another application has this context path and version", "rename one of them or give it another context_path or version";
    /// The deploy directory or the file can be written by every user of the machine: anyone could run code in the container.
    WorldWritable = "W0106", Found, "the file can be written by everyone", "chmod o-w the file";
    /// The file can't be read.
    Unreadable = "W0107", Found, "the file can't be read", "check the permissions";
    /// The file has no content.
    Empty = "W0201", Probe, "the file is empty", "copy it again; build it with 'cargo build --release'";
    /// The file does not start with the ELF magic number: it is not a shared library at all.
    NotElf = "W0202", Probe, "not an ELF file", "deploy the .so that 'cargo build --release' leaves in target/release";
    /// The file ends before the parts its headers announce.
    Truncated = "W0203", Probe, "the file is cut off", "copy it again, under another name first, then rename it";
    /// The module was built for another word size, byte order or operating system interface.
    WrongClass = "W0204", Probe, "built for another ELF class or byte order", "build for this machine's target";
    /// The module was built for another processor.
    WrongMachine = "W0205", Probe, "built for another machine", "build for this machine's target";
    /// The file is an ELF executable, object or core file; only a shared library (`crate-type = [\"cdylib\"]`) can be loaded.
    NotSharedLibrary = "W0206", Probe, "not a shared library", "set crate-type = [\"cdylib\"] in Cargo.toml";
    /// The ELF section with the module's descriptor is missing: the library was not made with `wharf_sdk::export!`.
    NoDescriptor = "W0207", Probe, "no Wharf descriptor", "add wharf_sdk::export!(...) to the library and build it again";
    /// The descriptor is there but does not read as one.
    BadDescriptor = "W0208", Probe, "the descriptor can't be read", "build the module again with a released wharf-sdk";
    /// The module speaks another ABI than the container: major versions must be equal, and the module's minor version no newer.
    ForeignAbi = "W0209", Probe, "made for another ABI version", "build it with the wharf-sdk that matches this container, or upgrade the container";
    /// With `panic = \"abort\"` one panic of one application would take the whole container down.
    PanicAbort = "W0210", Probe, "built with panic = \"abort\"", "remove panic = \"abort\" from the profile in Cargo.toml";
    /// The module needs a newer C library than the one running.
    NewerGlibc = "W0211", Probe, "needs a newer C library than this machine has", "build on a system as old as this one, or upgrade this one";
    /// A symbol the module imports is in none of the libraries it names.
    MissingSymbol = "W0212", Probe, "an imported symbol is nowhere to be found", "link the library that defines it, or install it on this machine";
    /// A shared library the module needs is not installed here.
    MissingLibrary = "W0213", Probe, "a needed shared library is missing", "install the library on this machine";
    /// The dynamic section of the module is damaged.
    BadElf = "W0214", Probe, "the ELF structures are damaged", "copy or build it again";
    /// The module's descriptor names resources that the configuration does not have, or has of another kind. Nothing of it was
    /// run. The message has the lines to add.
    MissingResource = "W0215", Probe, "a resource that it needs is missing", "add the lines shown, or bind it to another resource in the application's TOML file";
    /// Loading the module in a throw-away process ended that process with a signal.
    TrialCrashed = "W0301", Trial, "crashed in the trial load", "look at the module's static constructors and its start: run 'wharf check --load FILE' under a debugger";
    /// Loading the module in a throw-away process made that process exit.
    TrialExited = "W0302", Trial, "called exit in the trial load", "an application must not call exit: remove the call";
    /// The trial load did not end in time.
    TrialHung = "W0303", Trial, "did not come back from the trial load in time", "look for a loop or a lock in the module's static constructors and its start, or raise deploy.trial_timeout";
    /// The throw-away process could not be started.
    TrialImpossible = "W0304", Trial, "the trial process could not be started", "check the limits on processes and memory of this machine";
    /// The dynamic linker refused the library.
    LoadFailed = "W0401", Load, "the dynamic linker refused the library", "see the linker's message";
    /// The private copy of the module could not be written.
    CopyFailed = "W0402", Load, "the private copy could not be written", "check the space and the permissions of the state directory";
    /// The library has no root module although it has a descriptor.
    NoRootModule = "W0403", Load, "the library exports no root module", "build the module again with a released wharf-sdk";
    /// The types at the border differ from those of the container although the ABI version is the same.
    LayoutMismatch = "W0501", Layout, "the layout of the border's types differs", "build it with an unmodified wharf-sdk of this ABI version";
    /// The application's own init or start returned an error.
    StartFailed = "W0601", Start, "the application's start returned an error", "see the application's message";
    /// The application's own init or start panicked.
    StartPanicked = "W0602", Start, "the application's start panicked", "see the panic message and location";
    /// The application's own init or start did not return in time.
    StartHung = "W0603", Start, "the application's start did not return in time", "make start quicker, or raise start_timeout in its TOML file";
    /// Two servlets of the application have the same URL pattern, or a pattern is not one of the four forms.
    BadMapping = "W0604", Start, "the servlet mappings are not valid", "use '/path', '/path/*', '*.ext', '/' or '' and each pattern once";
    /// A resource that the application needs, with `start = "wait"`, does not answer. The application is started as soon as it
    /// does; what served before goes on.
    ResourceDown = "W0605", Start, "a resource that it needs does not answer", "see the reason; it is started when the resource answers";
    /// The application's health path did not answer with a 2xx status before traffic would have moved.
    Unhealthy = "W0701", Health, "the health check failed", "see the status; the version before goes on serving";
}

impl Code {
    /// The code with this text, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: something that was offered will not run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// What was found, naming the file, line or symbol.
    pub what: String,
    /// What to do, where there is more to say than the code's own advice.
    pub fix: Option<String>,
}

impl Refusal {
    /// A refusal with the code's own advice.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), fix: None }
    }

    /// The same with advice of its own.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// What to do.
    pub fn advice(&self) -> &str {
        self.fix.as_deref().unwrap_or(self.code.fix())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}: {}: {}; do this: {}",
            self.code,
            self.code.stage(),
            self.code.title(),
            self.what,
            self.advice()
        )
    }
}

impl std::error::Error for Refusal {}
