//! All realms of a container, with the threads that compute passwords and the one that looks after the files.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use wharf_kernel::guard::{Guard, Guards};
use wharf_kernel::launch::{Kind, Plan};
use wharf_kernel::options::{self, Constraint, LoginMethod, SameSite, SecurityOptions, Transport};
use wharf_kernel::resource::OwnResources;
use wharf_kernel::session::SessionManagers;
use wharf_kernel::settings::{AdminRole, Realm, RealmKind};

use crate::access::{AccessGuard, Login};
use crate::certificate_realm::CertificateRealm;
use crate::constraints::Constraints;
use crate::jwt_realm::JwtRealm;
use crate::oidc_realm::OidcRealm;
use crate::password_realm::{Job, PasswordRealm};
use crate::passwords::Passwords;
use crate::rules::Rules;
use crate::session_guard::{SessionGuard, SignIn, Way};
use crate::sign_on::SignOns;

/// Passwords that wait for a thread; more are answered with 503.
const QUEUE: usize = 64;
/// Threads that compute passwords, at most. Each takes what a hash takes, by default 19 MiB, as long as it computes.
const MAX_THREADS: usize = 4;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// All realms.
pub struct Realms {
    all: BTreeMap<String, AnyRealm>,
    sessions: Arc<dyn SessionManagers>,
    /// Those of realms with single sign-on.
    sign_ons: BTreeMap<String, Arc<SignOns>>,
    /// Where an encrypted connection would be made; `None` where plain requests are refused instead.
    https_port: Option<u16>,
    /// Its end is the end of the thread that looks after the files.
    _alive: Option<Sender<()>>,
}

#[derive(Clone)]
enum AnyRealm {
    Password(Arc<PasswordRealm>),
    Jwt(Arc<JwtRealm>),
    Certificate(Arc<CertificateRealm>),
    Oidc(Arc<OidcRealm>),
    Combined(Passwords),
}

impl AnyRealm {
    /// What its users show, and the methods of a login for that.
    fn shows(&self) -> (&'static str, &'static str) {
        match self {
            Self::Password(_) | Self::Combined(_) => ("passwords", "\"BASIC\" or \"FORM\""),
            Self::Jwt(_) => ("tokens", "\"BEARER\""),
            Self::Certificate(_) => ("certificates", "\"CLIENT-CERT\""),
            Self::Oidc(_) => ("a provider", "\"OIDC\""),
        }
    }

    fn passwords(&self) -> Option<Passwords> {
        match self {
            Self::Password(realm) => Some(Passwords::new(vec![realm.clone()])),
            Self::Combined(realms) => Some(realms.clone()),
            Self::Jwt(_) | Self::Certificate(_) | Self::Oidc(_) => None,
        }
    }
}

impl Realms {
    /// Starts the realms of the settings. A file that can't be read is logged; its realm refuses until it can. `secrets` puts in what
    /// a text refers to; requests to providers are made on `runtime`.
    ///
    /// # Errors
    /// When a thread can't be started, or a realm names what is not there.
    pub fn start(
        settings: &BTreeMap<String, Realm>,
        https_port: Option<u16>,
        stores: &dyn OwnResources,
        sessions: Arc<dyn SessionManagers>,
        secrets: fn(&str) -> Result<String, String>,
        runtime: &Handle,
    ) -> Result<Self, String> {
        let thread = |name: String, work: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name).spawn(work);
            started.map(drop).map_err(|e| format!("a thread for realms could not be started: {e}"))
        };
        let (pool, jobs) = sync_channel::<Job>(QUEUE);
        if settings.values().any(|realm| matches!(realm.kind, RealmKind::File | RealmKind::Sql)) {
            let jobs = Arc::new(Mutex::new(jobs));
            let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_THREADS);
            for number in 0..threads {
                let jobs = jobs.clone();
                thread(format!("wharf-realm-{number}"), Box::new(move || work(&jobs)))?;
            }
        }
        let mut all = BTreeMap::new();
        for (name, realm) in settings {
            let made = match realm.kind {
                RealmKind::Certificate => AnyRealm::Certificate(Arc::new(CertificateRealm::new(realm))),
                RealmKind::Oidc => {
                    let wrong = |what: String| format!("realm.{name}: {what}");
                    let secret = realm.client_secret.as_deref().map(secrets).transpose();
                    let secret = secret.map_err(|what| wrong(format!("client_secret: {what}")))?;
                    AnyRealm::Oidc(Arc::new(OidcRealm::new(name, realm, secret, runtime.clone()).map_err(wrong)?))
                }
                // When the others are there.
                RealmKind::Combined => continue,
                RealmKind::File | RealmKind::Sql => {
                    AnyRealm::Password(Arc::new(PasswordRealm::new(name, realm, pool.clone(), stores)?))
                }
                RealmKind::Jwt => {
                    AnyRealm::Jwt(Arc::new(JwtRealm::new(realm).map_err(|what| format!("realm.{name}: {what}"))?))
                }
            };
            all.insert(name.clone(), made);
        }
        for (name, realm) in settings.iter().filter(|(_, realm)| realm.kind == RealmKind::Combined) {
            let one = |one: &String| match all.get(one) {
                Some(AnyRealm::Password(realm)) => Ok(realm.clone()),
                _ => Err(format!("realm.{name}.realms: '{}' is no realm with passwords", one.escape_debug())),
            };
            let realms = realm.realms.iter().map(one).collect::<Result<_, _>>()?;
            all.insert(name.clone(), AnyRealm::Combined(Passwords::new(realms)));
        }
        let mut alive = None;
        if !all.is_empty() {
            let (sender, ended) = channel();
            let watched: Vec<AnyRealm> = all.values().cloned().collect();
            thread("wharf-realms".into(), Box::new(move || look(&watched, &ended)))?;
            alive = Some(sender);
        }
        let sign_on =
            |(name, realm): (&String, &Realm)| Some((name.clone(), Arc::new(SignOns::new(realm.single_sign_on?))));
        let sign_ons = settings.iter().filter_map(sign_on).collect();
        Ok(Self { all, sessions, sign_ons, https_port, _alive: alive })
    }
}

impl Guards for Realms {
    fn guard(&self, plan: &Plan) -> Result<Arc<dyn Guard>, String> {
        let options = &plan.options.security;
        let rules = Rules { constraints: Constraints::new(options)?, https_port: self.https_port };
        let Some(login) = &options.login else { return Ok(Arc::new(AccessGuard { rules, login: None })) };
        let name = &login.realm;
        let Some(realm) = self.all.get(name) else {
            let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "there is none".into() } else { known.join(", ") };
            return Err(format!(
                "[login] realm = \"{}\": wharf.toml has no [realm.{name}] (it has: {known})",
                name.escape_debug()
            ));
        };
        let way = match (login.method, realm, realm.passwords()) {
            (LoginMethod::Form, _, Some(passwords)) => {
                let login_page = login.login_page.clone().unwrap_or_default();
                let error_page = login.error_page.clone().unwrap_or_else(|| format!("{login_page}?error"));
                return self.by_session(plan, login, rules, Way::Form { passwords, login_page, error_page });
            }
            (LoginMethod::Oidc, AnyRealm::Oidc(realm), _) => {
                let callback = login.callback.clone().unwrap_or_else(|| "/oidc/callback".into());
                return self.by_session(plan, login, rules, Way::Provider { realm: realm.clone(), callback });
            }
            (LoginMethod::Basic, _, Some(passwords)) => Login::Basic(name.clone(), passwords),
            (LoginMethod::Bearer, AnyRealm::Jwt(realm), _) => Login::Bearer(name.clone(), realm.clone()),
            (LoginMethod::ClientCert, AnyRealm::Certificate(realm), _) => Login::Certificate(realm.clone()),
            _ => {
                let (has, method) = realm.shows();
                return Err(format!("[login] method: the realm '{name}' has {has}: write {method}"));
            }
        };
        Ok(Arc::new(AccessGuard { rules, login: Some(way) }))
    }
}

impl Realms {
    /// The guard of the admin API: users of this realm with one of its roles.
    ///
    /// # Errors
    /// When there is no such realm, or it has no passwords.
    pub fn admin_guard(&self, name: &str) -> Result<Arc<dyn Guard>, String> {
        let roles = AdminRole::ALL.iter().map(|role| role.as_str().to_owned()).collect();
        let everything = Constraint {
            patterns: vec!["/*".into()],
            methods: Vec::new(),
            method_omissions: Vec::new(),
            roles: Some(roles),
            transport: Transport::None,
        };
        let options = SecurityOptions { constraints: vec![everything], ..SecurityOptions::default() };
        let rules = Rules { constraints: Constraints::new(&options)?, https_port: None };
        let passwords = self.all.get(name).and_then(AnyRealm::passwords);
        let passwords =
            passwords.ok_or_else(|| format!("admin.realm: '{}' is no realm with passwords", name.escape_debug()))?;
        Ok(Arc::new(AccessGuard { rules, login: Some(Login::Basic(name.to_owned(), passwords)) }))
    }

    fn by_session(
        &self,
        plan: &Plan,
        login: &options::Login,
        rules: Rules,
        way: Way,
    ) -> Result<Arc<dyn Guard>, String> {
        let sessions = self.sessions.of(&plan.id, &plan.options.session)?;
        if matches!(way, Way::Provider { .. }) && sessions.settings().same_site == SameSite::Strict {
            return Err("[login] method = \"OIDC\": with [session] same_site = \"strict\" a browser that comes back from the provider \
                        has no session: write \"lax\""
                .into());
        }
        Ok(Arc::new(SessionGuard(Arc::new(SignIn {
            rules,
            realm: login.realm.clone(),
            way,
            sessions,
            endpoint_saves: plan.kind == Kind::Module,
            version: plan.id.version.as_str().to_owned(),
            context: plan.id.path.as_str().to_owned(),
            logout: login.logout.clone(),
            sign_ons: self.sign_ons.get(&login.realm).cloned(),
            host: plan.id.host.to_string(),
        }))))
    }
}

/// Computes until there is nobody left to ask.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic costs the request that asked: it gets no answer, which is a refusal.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("the check of a password panicked; its request is refused");
        }
    }
}

fn look(realms: &[AnyRealm], ended: &Receiver<()>) {
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        for realm in realms {
            match realm {
                AnyRealm::Password(realm) => realm.look(),
                AnyRealm::Jwt(realm) => realm.look(),
                AnyRealm::Certificate(realm) => realm.look(),
                AnyRealm::Oidc(_) | AnyRealm::Combined(_) => {}
            }
        }
    }
}
