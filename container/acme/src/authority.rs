//! The authority: an account there, and orders.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, HttpClient,
    Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use wharf_kernel::challenges::{Challenges, Open};
use wharf_kernel::settings::Acme;

use crate::pair::Pair;

/// How long one answer of the authority may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take for the challenges, and for the certificate.
const WAIT: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The client of the authority.
#[derive(Clone)]
struct Client(reqwest::Client);

impl HttpClient for Client {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.0.clone();
        let other = |error: Box<dyn Error + Send + Sync>| instant_acme::Error::Other(error);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let content = body.collect().await.map_err(|e| other(Box::new(e)))?.to_bytes();
            let request = reqwest::Request::try_from(http::Request::from_parts(parts, content));
            let answer = client.execute(request.map_err(|e| other(e.into()))?).await.map_err(|e| other(e.into()))?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let content = answer.bytes().await.map_err(|e| other(e.into()))?;
            let mut response = http::Response::new(Full::new(content));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(BytesResponse::from(response))
        })
    }
}

/// The authority of the settings.
pub(crate) struct Authority {
    settings: Acme,
    client: Client,
    challenges: Arc<Challenges>,
}

impl Authority {
    /// # Errors
    /// When the file of authorities can't be used.
    pub(crate) fn new(settings: Acme, challenges: Arc<Challenges>) -> std::result::Result<Self, String> {
        let client = client(settings.ca.as_deref()).map_err(|what| format!("tls.acme.ca: {what}"))?;
        Ok(Self { settings, client: Client(client), challenges })
    }

    /// The account: the one that is kept, or a new one.
    async fn account(&self, pair: &Pair) -> Result<Account> {
        let path = pair.account();
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        if let Ok(text) = std::fs::read(&path) {
            let credentials: AccountCredentials =
                serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder.create(&new, self.settings.directory.clone(), None).await?;
        pair.put(&path, &serde_json::to_vec(&credentials)?)?;
        Ok(account)
    }

    /// Orders a certificate by the challenge `http-01`, and writes it.
    ///
    /// # Errors
    /// Whatever the authority says, or that it does not answer.
    pub(crate) async fn order(&self, pair: &Pair) -> Result<()> {
        let account = self.account(pair).await?;
        let names: Vec<Identifier> = self.settings.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        // They are answered until this is over.
        let mut open: Vec<Open> = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(format!("an authorisation is {other:?}").into()),
            }
            let challenge = authorization.challenge(ChallengeType::Http01);
            let mut challenge = challenge.ok_or("the authority offers no challenge of type http-01")?;
            let answer = challenge.key_authorization();
            open.push(self.challenges.open(&challenge.token, answer.as_str()));
            challenge.set_ready().await?;
        }
        let wait = RetryPolicy::new().timeout(WAIT);
        let status = order.poll_ready(&wait).await?;
        if status != OrderStatus::Ready {
            let mut reasons = Vec::new();
            let mut authorizations = order.authorizations();
            while let Some(Ok(authorization)) = authorizations.next().await {
                let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
                reasons.extend(errors.map(ToString::to_string));
            }
            return Err(format!("the order is {status:?}: {}", reasons.join("; ")).into());
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&wait).await?;
        Ok(pair.write(&chain, &key)?)
    }
}

fn client(ca: Option<&Path>) -> Result<reqwest::Client> {
    let mut builder =
        reqwest::Client::builder().timeout(PATIENCE).user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca {
        let content = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        for certificate in reqwest::Certificate::from_pem_bundle(&content)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder.build()?)
}
