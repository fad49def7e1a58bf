//! One look at a deploy folder: which applications are there, what they want, and which files are no applications.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wharf_kernel::launch::Kind;
use wharf_kernel::refusal::Code;
use wharf_kernel::{AppId, ContextPath, Refusal, Version};
use wharf_mapping::AppName;

use crate::app_toml::{AppToml, Place};

/// A folder that is watched, and the host its applications belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Name of the virtual host.
    pub host: Arc<str>,
    /// The folder.
    pub dir: PathBuf,
    /// What stands before the stem in the application's name: empty for the main folder, `HOST:` for the others.
    pub prefix: String,
}

/// What tells one state of a file from another: inode, size, modification time and mode of each file that matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Print(Vec<(u64, u64, i64, i64, u32)>);

impl Print {
    fn add(&mut self, meta: &Metadata) {
        self.0.push((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.mode()));
    }

    /// Takes the print of one file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut print = Self::default();
        print.add(&fs::symlink_metadata(path)?);
        Ok(print)
    }

    /// True when every file was last modified at least `age` ago.
    pub fn is_older_than(&self, age: Duration) -> bool {
        let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let limit = i64::try_from(now.saturating_sub(age).as_secs()).unwrap_or(i64::MAX);
        self.0.iter().all(|(_, _, mtime, ..)| *mtime < limit)
    }
}

/// An application as wanted by the files.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Who it is.
    pub id: AppId,
    /// What it is.
    pub kind: Kind,
    /// The `.so`, or the document root.
    pub source: PathBuf,
    /// The exploded folder, if any.
    pub folder: Option<PathBuf>,
    /// Init parameters.
    pub init: BTreeMap<String, String>,
    /// The rest of its TOML file.
    pub toml: AppToml,
}

/// One application that was found, or something that wants to be one.
#[derive(Debug, Clone)]
pub struct Source {
    /// The name the operations know it by.
    pub name: String,
    /// The `.so` or the folder, as it is in the deploy folder.
    pub path: PathBuf,
    /// All files that make its print.
    pub files: Vec<PathBuf>,
    /// Their print.
    pub print: Print,
    /// What it wants, or why it can't be had.
    pub spec: Result<Spec, Refusal>,
}

/// What a look at a folder gave.
#[derive(Debug, Default)]
pub struct Listing {
    /// Applications, by name.
    pub sources: Vec<Source>,
    /// Side-car files without an application.
    pub orphans: Vec<PathBuf>,
    /// True when everyone may write to the folder.
    pub world_writable: bool,
}

/// True for names that are never looked at: dot files and files that are still being written by convention.
pub fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || [".tmp", ".part"].iter().any(|e| name.ends_with(e))
}

/// Looks at one folder.
///
/// # Errors
/// When the folder itself can't be read.
pub fn scan(root: &Root) -> io::Result<Listing> {
    let mode = fs::metadata(&root.dir)?.mode();
    // With the sticky bit nobody but the owner can replace a file.
    let mut listing = Listing { world_writable: mode & 0o1002 == 0o002, ..Listing::default() };
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&root.dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !is_ignored(&name)
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    let all: HashSet<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        let path = root.dir.join(name);
        // Gone since the listing: as if it had never been there.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if let Some(stem) = name.strip_suffix(".so") {
            listing.sources.push(file(root, stem, path, &meta));
        } else if let Some(stem) = name.strip_suffix(".toml") {
            if !all.contains(format!("{stem}.so").as_str()) && !all.contains(stem) {
                match alone(root, stem, &path, &meta) {
                    Some(source) => listing.sources.push(source),
                    None => listing.orphans.push(path),
                }
            }
        } else if meta.is_dir() {
            let mut source = folder(root, name, path, &meta);
            if all.contains(format!("{name}.so").as_str()) {
                // Both want the same name; the file has it, and the folder will be refused as a duplicate.
                source.name.push('/');
            }
            listing.sources.push(source);
        } else if !all.contains(format!("{name}.so").as_str())
            && meta.is_symlink()
            && fs::metadata(&path).is_ok_and(|m| m.is_dir())
        {
            listing.sources.push(refused(root, name, path, &meta, "is a symbolic link"));
        }
    }
    Ok(listing)
}

fn refused(root: &Root, stem: &str, path: PathBuf, meta: &Metadata, what: &str) -> Source {
    let mut print = Print::default();
    print.add(meta);
    let refusal = Refusal::new(Code::NotRegular, format!("{} {what}", path.display()));
    Source { name: format!("{}{stem}", root.prefix), files: vec![path.clone()], path, print, spec: Err(refusal) }
}

fn check_file(path: &Path, meta: &Metadata) -> Result<(), Refusal> {
    let kind = meta.file_type();
    let what = if kind.is_symlink() {
        "is a symbolic link"
    } else if kind.is_fifo() {
        "is a FIFO"
    } else if kind.is_socket() {
        "is a socket"
    } else if kind.is_dir() {
        "is a folder"
    } else if !kind.is_file() {
        "is a device"
    } else if meta.mode() & 0o002 != 0 {
        let what = format!("{} has mode {:03o}", path.display(), meta.mode() & 0o777);
        return Err(Refusal::new(Code::WorldWritable, what).fix(format!("chmod o-w '{}'", path.display())));
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::NotRegular, format!("{} {what}", path.display())))
}

fn read_toml(path: &Path, meta: &Metadata, place: Place) -> Result<AppToml, Refusal> {
    check_file(path, meta)?;
    let text = fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => Refusal::new(Code::BadAppToml, format!("{} is not UTF-8", path.display())),
        _ => Refusal::new(Code::Unreadable, format!("{}: {e}", path.display())),
    })?;
    AppToml::parse(&path.display().to_string(), &text, place).map_err(|e| Refusal::new(Code::BadAppToml, e))
}

fn spec(root: &Root, stem: &str, kind: Kind, source: PathBuf, toml: AppToml) -> Result<Spec, Refusal> {
    let bad = |what| Refusal::new(Code::BadName, what);
    let name = AppName::parse(stem).map_err(|e| bad(e.to_string()))?;
    let path = match &toml.context_path {
        Some(path) => {
            ContextPath::parse(path).map_err(|e| bad(format!("in {stem}.toml: {e}")).fix("correct context_path"))?
        }
        None => ContextPath::parse(&name.path).map_err(bad)?,
    };
    let host = toml.host.as_deref().map_or_else(|| root.host.clone(), Arc::from);
    let init = toml.init.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    let id = AppId { host, path, version: Version::new(&name.version) };
    Ok(Spec { id, kind, source, folder: None, init, toml })
}

fn file(root: &Root, stem: &str, path: PathBuf, meta: &Metadata) -> Source {
    let side_car = root.dir.join(format!("{stem}.toml"));
    let mut files = vec![path.clone()];
    let mut print = Print::default();
    print.add(meta);
    let side = fs::symlink_metadata(&side_car).ok();
    if let Some(side) = &side {
        files.push(side_car.clone());
        print.add(side);
    }
    let spec = check_file(&path, meta).and_then(|()| {
        let toml =
            side.as_ref().map_or_else(|| Ok(AppToml::default()), |meta| read_toml(&side_car, meta, Place::SideCar))?;
        spec(root, stem, Kind::Module, path.clone(), toml)
    });
    Source { name: format!("{}{stem}", root.prefix), path, files, print, spec }
}

fn folder(root: &Root, stem: &str, path: PathBuf, meta: &Metadata) -> Source {
    let toml_path = path.join("app.toml");
    let mut files = vec![toml_path.clone()];
    let mut print = Print::default();
    let spec = (|| {
        let Ok(toml_meta) = fs::symlink_metadata(&toml_path) else {
            print.add(meta);
            return Err(Refusal::new(Code::NoAppToml, format!("there is no {}", toml_path.display())));
        };
        print.add(&toml_meta);
        let toml = read_toml(&toml_path, &toml_meta, Place::Folder)?;
        let bad = |what: String| Refusal::new(Code::BadAppToml, format!("{}: {what}", toml_path.display()));
        let kind = toml.kind.clone().ok_or_else(|| {
            bad("there is no 'kind'".into())
                .fix("add kind = \"static\", \"module\", \"cgi\", \"fastcgi\", \"aspnet\" or \"proxy\"")
        })?;
        let source = match kind {
            Kind::Proxy => path.clone(),
            Kind::Static | Kind::Cgi | Kind::Fastcgi | Kind::Aspnet => {
                let source = path.join(toml.root.as_deref().unwrap_or(Path::new("")));
                if !source.is_dir() {
                    return Err(bad(format!("root: {} is not a folder", source.display())));
                }
                source
            }
            Kind::Module => {
                let source = match &toml.module {
                    Some(module) => path.join(module),
                    None => only_module(&path).map_err(bad)?,
                };
                files.push(source.clone());
                let meta =
                    fs::symlink_metadata(&source).map_err(|e| bad(format!("module {}: {e}", source.display())))?;
                print.add(&meta);
                check_file(&source, &meta)?;
                source
            }
        };
        let mut spec = spec(root, stem, kind, source, toml)?;
        spec.folder = Some(path.clone());
        Ok(spec)
    })();
    Source { name: format!("{}{stem}", root.prefix), path, files, print, spec }
}

/// A TOML file without a module or a folder of its name: an application when it says what it is, else nothing.
fn alone(root: &Root, stem: &str, path: &Path, meta: &Metadata) -> Option<Source> {
    let mut print = Print::default();
    print.add(meta);
    let spec = match read_toml(path, meta, Place::Alone) {
        Ok(toml) => {
            let kind = toml.kind.clone()?;
            let bad = |what: &str| Err(Refusal::new(Code::BadAppToml, format!("{}: {what}", path.display())));
            match (&kind, &toml.root) {
                (Kind::Module, _) => bad("a module needs a file or a folder of this name"),
                (Kind::Proxy, _) => spec(root, stem, kind, path.to_owned(), toml),
                (_, Some(at)) => {
                    let source = root.dir.join(at);
                    if source.is_dir() {
                        spec(root, stem, kind, source, toml)
                    } else {
                        bad(&format!("root: {} is not a folder", source.display()))
                    }
                }
                (_, None) => bad("there is no 'root', the folder with its files"),
            }
        }
        // It may be the side-car of a module that is yet to come.
        Err(refusal)
            if !std::fs::read_to_string(path).is_ok_and(|t| t.lines().any(|l| l.trim_start().starts_with("kind"))) =>
        {
            tracing::debug!("{refusal}");
            return None;
        }
        Err(refusal) => Err(refusal),
    };
    let name = format!("{}{stem}", root.prefix);
    Some(Source { name, path: path.to_owned(), files: vec![path.to_owned()], print, spec })
}

/// The only `.so` in a folder.
///
/// # Errors
/// When there is none, or several.
pub fn only_module(folder: &Path) -> Result<PathBuf, String> {
    let mut found = fs::read_dir(folder).map_err(|e| e.to_string())?.filter_map(|e| {
        let path = e.ok()?.path();
        (path.extension()? == "so" && !is_ignored(path.file_name()?.to_str()?)).then_some(path)
    });
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err("there is no .so in the folder".into()),
        _ => Err("there is more than one .so in the folder: say which with module = \"FILE\"".into()),
    }
}
