//! Steps of a schema's history.

use std::path::{Path, PathBuf};

use wharf_abi::FfiMigration;

use crate::{BoxError, ServletContext};

/// A step of a schema's history: SQL that is run once.
///
/// The container remembers which were applied, and their texts, in the table `_sqlx_migrations` of the database. One that was
/// applied is never changed: add another.
///
/// In a hot redeploy the old generation goes on with the new schema until it has drained, so write steps that it can live
/// with: add before you remove.
#[derive(Debug, Clone)]
pub struct Migration {
    version: i64,
    description: String,
    sql: String,
    /// Texts for engines that need another.
    others: Vec<(String, String)>,
}

impl Migration {
    /// A step.
    pub fn new(version: i64, description: impl Into<String>, sql: impl Into<String>) -> Self {
        Self { version, description: description.into(), sql: sql.into(), others: Vec::new() }
    }

    /// Another text for an engine that needs one: `sqlite`, `postgres` or `mysql`.
    pub fn for_engine(mut self, engine: impl Into<String>, sql: impl Into<String>) -> Self {
        self.others.push((engine.into(), sql.into()));
        self
    }

    /// Its place in the history.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The steps in a folder: files `VERSION_DESCRIPTION.sql`, as `0001_products.sql`, and beside them, for an engine that needs
    /// another text, `0001_products.postgres.sql`.
    ///
    /// # Errors
    /// When the folder can't be read, or a file's name has no version.
    pub fn read(folder: &Path) -> Result<Vec<Self>, BoxError> {
        let at = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        let mut all: Vec<Self> = Vec::new();
        let mut others = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| at(folder, e))? {
            let path = entry.map_err(|e| at(folder, e))?.path();
            if path.extension().is_none_or(|e| e != "sql") {
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let (version, description) = stem.split_once('_').unwrap_or((&stem, ""));
            let version = version
                .parse()
                .map_err(|_| format!("{}: a migration is called VERSION_DESCRIPTION.sql", path.display()))?;
            let sql = std::fs::read_to_string(&path).map_err(|e| at(&path, e))?;
            match description.rsplit_once('.') {
                Some((_, engine)) => others.push((version, engine.to_owned(), sql)),
                None => all.push(Self::new(version, description.replace('_', " "), sql)),
            }
        }
        for (version, engine, sql) in others {
            let Some(step) = all.iter_mut().find(|step| step.version == version) else {
                return Err(format!("{}: migration {version} is there for {engine} alone", folder.display()).into());
            };
            step.others.push((engine, sql));
        }
        all.sort_by_key(Self::version);
        Ok(all)
    }

    pub(super) fn into_ffi(self, engine: &str) -> FfiMigration {
        let Self { version, description, sql, others } = self;
        let sql = others.into_iter().find(|(name, _)| name == engine).map_or(sql, |(_, sql)| sql);
        FfiMigration { version, description: description.into(), sql: sql.into() }
    }
}

/// The migrations of an application.
pub(crate) enum Migrations {
    /// In the module.
    Embedded(Vec<Migration>),
    /// Beside it.
    Folder(PathBuf),
}

impl Migrations {
    pub(crate) async fn apply(&self, context: &ServletContext, resource: &str) -> Result<(), BoxError> {
        let all = match self {
            Self::Embedded(all) => all.clone(),
            Self::Folder(path) => Migration::read(&context.folder().unwrap_or(Path::new("")).join(path))?,
        };
        let source = context.data_source(resource).map_err(|e| e.to_string())?;
        source.migrate(all).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_the_order_of_versions() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("10_b.sql", "B"), ("10_b.mysql.sql", "M"), ("0002_first_of_all.sql", "A"), ("notes.txt", "x")]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let all = Migration::read(folder.path()).unwrap();
        let sql = |engine: &str| all[1].clone().into_ffi(engine).sql.into_string();
        assert_eq!((sql("mysql"), sql("sqlite")), ("M".into(), "B".into()));
        let all: Vec<_> = all.iter().map(|m| (m.version, m.description.as_str(), m.sql.as_str())).collect();
        assert_eq!(all, [(2, "first of all", "A"), (10, "b", "B")]);
        std::fs::write(folder.path().join("x_y.sql"), "").unwrap();
        assert!(Migration::read(folder.path()).unwrap_err().to_string().contains("x_y.sql"));
        assert!(Migration::read(Path::new("/no/such")).unwrap_err().to_string().contains("/no/such"));
    }
}
