//! Runs static sites: a folder of files as an application.

use std::sync::Arc;

use wharf_kernel::Refusal;
use wharf_kernel::launch::{Description, Launched, Launcher, Plan};
use wharf_kernel::refusal::Code;

use crate::beneath::Beneath;
use crate::endpoint::Files;
use crate::generation::Generation;

/// Launches applications of the kind [`Static`](wharf_kernel::launch::Kind::Static).
#[derive(Debug, Default, Clone, Copy)]
pub struct StaticSite;

impl Launcher for StaticSite {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        let root = &plan.source;
        let refuse = |code, what: &str| {
            Refusal::new(code, format!("document root {}: {what}", root.display()))
                .fix("name an existing folder in app.toml, or create it")
        };
        let metadata = std::fs::metadata(root).map_err(|error| refuse(Code::Unreadable, &error.to_string()))?;
        if !metadata.is_dir() {
            return Err(refuse(Code::NotRegular, "not a folder"));
        }
        std::fs::read_dir(root).map_err(|error| refuse(Code::Unreadable, &error.to_string()))?;
        let folder = plan.folder.as_deref().unwrap_or(root);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Description { name, ..Description::default() })
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let description = self.verify(plan)?;
        let root = Beneath::open_root(&plan.source).map_err(|error| {
            Refusal::new(Code::Unreadable, format!("document root {}: {error}", plan.source.display()))
        })?;
        let endpoint = Arc::new(Files::new(root, plan.id.path.as_str()));
        Ok(Generation::new(description, endpoint, || {}))
    }
}
