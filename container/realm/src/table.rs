//! Users in a database of the configuration: their hashes and their roles, by two statements.

use std::future::poll_fn;
use std::sync::Arc;

use wharf_kernel::resource::{DataSource, SqlError, SqlValue, Statement};
use wharf_kernel::settings;

use crate::users::{check_hash, check_role, decoy, is_right};

/// See the module. It blocks: it is for the threads that compute passwords.
pub(crate) struct Table {
    realm: String,
    database: Arc<dyn DataSource>,
    users: String,
    roles: String,
    /// What is computed for a name that nobody has.
    decoy: String,
}

impl Table {
    pub(crate) fn new(name: &str, realm: &settings::Realm, database: Arc<dyn DataSource>) -> Result<Self, String> {
        Ok(Self {
            realm: name.to_owned(),
            database,
            users: realm.user_query.clone().unwrap_or_default(),
            roles: realm.role_query.clone().unwrap_or_default(),
            decoy: decoy()?,
        })
    }

    /// The roles of the user with this name and password; `None` where they are nobody's.
    ///
    /// # Errors
    /// When there is no telling now, for people to read.
    pub(crate) fn verify(&self, user: &str, password: &[u8]) -> Result<Option<Vec<String>>, String> {
        let found = self.ask(&self.users, user)?;
        let hash = match found.as_slice() {
            [] => None,
            [hash] => {
                check_hash(hash)
                    .map_err(|what| format!("realm.{}: user '{}': {what}", self.realm, user.escape_debug()))?;
                Some(hash)
            }
            _ => return Err(format!("realm.{}: user_query gives more than one row for one user", self.realm)),
        };
        let right = is_right(hash.unwrap_or(&self.decoy), password);
        // Asked for whoever it is: how long it takes says nothing.
        let roles = self.ask(&self.roles, user)?;
        if hash.is_none() || !right {
            return Ok(None);
        }
        for role in &roles {
            check_role(role).map_err(|what| format!("realm.{}: user '{}': {what}", self.realm, user.escape_debug()))?;
        }
        Ok(Some(roles))
    }

    /// The texts of the first column.
    fn ask(&self, sql: &str, user: &str) -> Result<Vec<String>, String> {
        let statement = Statement {
            sql: sql.to_owned(),
            sets: vec![vec![SqlValue::Text(user.to_owned())]],
            timeout: None,
            request: String::new(),
        };
        let mut pieces = Box::into_pin(self.database.query(statement));
        let all = pollster::block_on(async {
            let mut all = Vec::new();
            while let Some(rows) = poll_fn(|cx| pieces.as_mut().poll_next(cx)).await {
                let rows = rows?;
                let width = rows.width.max(1);
                all.extend(rows.values.into_iter().step_by(width));
                if rows.done.is_some() {
                    break;
                }
            }
            Ok::<_, SqlError>(all)
        });
        let all = all.map_err(|error| format!("realm.{}: {error}", self.realm))?;
        let text = |value| match value {
            SqlValue::Text(text) => Ok(text),
            _ => Err(format!("realm.{}: its statements must give texts", self.realm)),
        };
        all.into_iter().map(text).collect()
    }
}
