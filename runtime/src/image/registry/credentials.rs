//! Credentials: how to log in at a registry, as `docker login` and `shoal login` keep it.
//!
//! Input: Docker's `config.json` and a registry. Output: a [`Login`], if there is one. Passwords are never logged or
//! shown. (Docker CLI documentation, "docker login": credential stores and helpers.)

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

/// Longest file of logins in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a helper may take.
const HELPER_TIME_MAX: Duration = Duration::from_secs(10);
/// What helpers call a user that is none, but a token.
const TOKEN_USER: &str = "<token>";

/// A user's name and password, or access token in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for Login {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why a login was not found out. Nothing was asked of the registry.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there but cannot be read.
    #[error("cannot read the registry logins in {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what `docker login` writes.
    #[error("the registry logins in {} are malformed: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The helper that the file names does not answer.
    #[error("the credential helper docker-credential-{helper} gives no login for {host}: {what}")]
    Helper {
        /// Its name.
        helper: String,
        /// The registry.
        host: String,
        /// What happened.
        what: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Returns the login for the registry at `host`, if the file has one. An absent file has none.
pub(super) async fn find(path: &Path, host: &str) -> Result<Option<Login>, CredentialsError> {
    let at = |source| CredentialsError::Io { path: path.to_owned(), source };
    let bytes = match tokio::fs::metadata(path).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(at(error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(at(io::ErrorKind::FileTooLarge.into())),
        Ok(_) => tokio::fs::read(path).await.map_err(at)?,
    };
    let malformed = |what: String| CredentialsError::Malformed { path: path.to_owned(), what };
    // By way of a map, since a derived reader takes a list for a struct as well.
    let map: serde_json::Map<_, _> = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let file = ConfigFile::deserialize(map).map_err(|error| malformed(error.to_string()))?;
    let helper = named(&file.cred_helpers, host).map(|(_, helper)| helper);
    let entry = named(&file.auths, host);
    if let Some(helper) = helper {
        return ask_helper(helper, host).await.map(Some);
    }
    if let Some(login) = entry.map(|(key, entry)| read_entry(key, entry)).transpose().map_err(malformed)?.flatten() {
        return Ok(Some(login));
    }
    // `docker login` leaves an empty entry for what it put into the store.
    match (entry, &file.creds_store) {
        (Some((key, _)), Some(store)) => ask_helper(store, key).await.map(Some),
        (None, _) | (_, None) => Ok(None),
    }
}

/// Finds what a file says of a host, under any of the keys that Docker has used for it.
fn named<'a, T>(entries: &'a BTreeMap<String, T>, host: &str) -> Option<(&'a str, &'a T)> {
    let wanted = plain(host);
    entries.iter().find(|(key, _)| plain(key) == wanted).map(|(key, entry)| (key.as_str(), entry))
}

/// A key without scheme and path; all names of Docker Hub are one.
fn plain(key: &str) -> &str {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    match host.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        host => host,
    }
}

fn read_entry(key: &str, entry: &Entry) -> Result<Option<Login>, String> {
    if let (Some(username), Some(password)) = (&entry.username, &entry.password) {
        return Ok(Some(Login { username: username.clone(), password: password.clone() }));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let form = || format!("the entry {key:?} is no base64 of NAME:PASSWORD");
    let decoded = STANDARD.decode(auth.trim()).map_err(|_| form())?;
    let decoded = String::from_utf8(decoded).map_err(|_| form())?;
    let (username, password) = decoded.split_once(':').ok_or_else(form)?;
    Ok(Some(Login { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() }))
}

async fn ask_helper(helper: &str, host: &str) -> Result<Login, CredentialsError> {
    let failed = |what: String| CredentialsError::Helper { helper: helper.to_owned(), host: host.to_owned(), what };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if helper.is_empty() || !helper.bytes().all(valid) {
        return Err(failed("its name is not allowed".to_owned()));
    }
    let asking = async {
        let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(host.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let answered = tokio::time::timeout(HELPER_TIME_MAX, asking).await.map_err(|_| failed("it hangs".to_owned()))?;
    let output = answered.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stdout).chars().take(200).collect()));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    if answer.username == TOKEN_USER {
        return Err(failed("it keeps an identity token, which is not supported: use an access token".to_owned()));
    }
    Ok(Login { username: answer.username, password: answer.secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(text: &str, host: &str) -> Result<Option<Login>, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        find(&path, host).await
    }

    #[tokio::test]
    async fn logins_are_found_under_all_keys_that_docker_writes() {
        // anna:geheim:mit:doppelpunkt
        let auth = "YW5uYTpnZWhlaW06bWl0OmRvcHBlbHB1bmt0";
        let file = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"reg:5000":{{"username":"b","password":"p"}},"empty":{{}}}},"HttpHeaders":{{}}}}"#
        );
        let hub = found(&file, "registry-1.docker.io").await.unwrap().unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("anna", "geheim:mit:doppelpunkt"));
        assert_eq!(found(&file, "reg:5000").await.unwrap().unwrap().username, "b");
        for host in ["reg:5001", "reg", "empty", "example.org"] {
            assert_eq!(found(&file, host).await.unwrap(), None, "{host}");
        }
        assert_eq!(find(Path::new("/nonexistent/config.json"), "x").await.unwrap(), None);
        assert!(!format!("{hub:?}").contains("geheim"));
    }

    #[tokio::test]
    async fn broken_files_and_helpers_are_said_to_be_broken() {
        for text in ["", "[]", r#"{"auths":{"x":{"auth":"!"}}}"#, r#"{"auths":{"x":{"auth":"YQ=="}}}"#] {
            assert!(matches!(found(text, "x").await, Err(CredentialsError::Malformed { .. })), "{text}");
        }
        for helper in ["../../bin/sh", "does-not-exist", ""] {
            let text = format!(r#"{{"credHelpers":{{"x":"{helper}"}}}}"#);
            assert!(matches!(found(&text, "x").await, Err(CredentialsError::Helper { .. })), "{text}");
        }
    }
}
