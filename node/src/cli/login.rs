//! `shoal login`: shows a login to a registry and keeps it where `docker login` does.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::output::Output;
use crate::client::Client;

/// Under this key Docker keeps the login to its hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 64 << 10;

/// Which registry, and as whom.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry [default: Docker Hub].
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io", hide_default_value = true)]
    registry: String,
    /// Log in as this user.
    #[arg(short, long)]
    username: String,
    /// Read the password or access token from standard input [default: ask for it].
    #[arg(long)]
    password_stdin: bool,
}

/// Returns Docker's file of logins of who runs this.
pub(super) fn file() -> Option<PathBuf> {
    let docker = std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").filter(|path| !path.is_empty()).map(|home| Path::new(&home).join(".docker"));
    docker.or_else(home).map(|directory| directory.join("config.json"))
}

pub(super) async fn run(args: LoginArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let path = file().context("cannot tell where to keep the login: set HOME or DOCKER_CONFIG")?;
    let password = password(args.password_stdin)?;
    let asked = json!({ "username": args.username, "password": password, "serveraddress": args.registry });
    client.post::<serde_json::Value>("/auth", &asked).await?;
    keep(&path, &args.registry, &args.username, &password)?;
    output.line("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

fn password(from_stdin: bool) -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !from_stdin && !stdin.is_terminal() {
        bail!("there is no terminal to ask for the password: use --password-stdin");
    }
    let hidden = (!from_stdin).then(|| tcgetattr(&stdin)).transpose()?;
    if let Some(before) = &hidden {
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent)?;
        // Nobody can be told if standard error is gone.
        let _ = write!(io::stderr(), "Password: ").and_then(|()| io::stderr().flush());
    }
    let mut line = String::new();
    let read = io::Read::take(stdin.lock(), PASSWORD_BYTES_MAX as u64).read_line(&mut line);
    if let Some(before) = &hidden {
        tcsetattr(&stdin, SetArg::TCSAFLUSH, before)?;
        let _ = writeln!(io::stderr());
    }
    read?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        bail!("the password is empty");
    }
    Ok(password)
}

/// Writes the login into the file, beside all else that is there, readable by its owner only.
fn keep(path: &Path, registry: &str, username: &str, password: &str) -> anyhow::Result<()> {
    let at = || format!("cannot keep the login in {}", path.display());
    let mut document: Value = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(at)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(error).with_context(at),
    };
    if !document.is_object() || document.get("auths").is_some_and(|auths| !auths.is_object()) {
        bail!("{}: it is not what docker login writes", at());
    }
    let key = if registry == "docker.io" { HUB_KEY } else { registry };
    let auth = STANDARD.encode(format!("{username}:{password}"));
    document["auths"][key] = json!({ "auth": auth });
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).with_context(at)?;
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&beside).with_context(at)?;
    let written = serde_json::to_vec_pretty(&document).map_err(io::Error::from).and_then(|text| file.write_all(&text));
    let kept = written.and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if kept.is_err() {
        // The error that matters is the first.
        let _ = std::fs::remove_file(&beside);
    }
    kept.with_context(at)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_login_is_kept_beside_what_docker_has_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        keep(&path, "docker.io", "anna", "geheim").unwrap();
        let mut document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        document["HttpHeaders"] = json!({ "x": "y" });
        std::fs::write(&path, document.to_string()).unwrap();
        keep(&path, "reg:5000", "b", "p").unwrap();
        let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let auths = json!({ HUB_KEY: { "auth": "YW5uYTpnZWhlaW0=" }, "reg:5000": { "auth": "Yjpw" } });
        assert_eq!(document, json!({ "auths": auths, "HttpHeaders": { "x": "y" } }));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::write(&path, "[]").unwrap();
        assert!(keep(&path, "x", "b", "p").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[]");
    }
}
