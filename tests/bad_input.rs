//! Wrong things said to a node: by the API, the commands, the flags, and on its ports.

use std::fs;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::support::{Lab, PROGRAM, inside, text, until};

/// The user and group of nobody on Debian.
const NOBODY: u32 = 65534;

/// Runs the program as a user without rights.
pub(crate) fn as_nobody(arguments: &[&str]) -> Result<Output> {
    // The build directory may be closed to others: a copy in a place that is open.
    let folder = tempfile::Builder::new().prefix("shoal-nobody-").tempdir()?;
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let copy = folder.path().join("shoal");
    fs::copy(PROGRAM, &copy)?;
    Ok(Command::new(copy).args(arguments).uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output()?)
}

pub(crate) fn without_root_up_says_so(_lab: &mut Lab) -> Result<()> {
    let said = text(&as_nobody(&["--socket", "/nonexistent/socket", "up", "--data-dir", "/nonexistent/data"])?);
    ensure!(said.contains("root"), "{said}");
    Ok(())
}

pub(crate) fn wrong_api_requests_are_refused_with_a_message(lab: &mut Lab) -> Result<()> {
    let huge = vec![b' '; 40 << 20];
    let spec = |name: &str, replicas: &str| {
        format!(
            r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"whoami:latest"}}}},"Mode":{{"Replicated":{{"Replicas":{replicas}}}}}}}"#
        )
    };
    let (invalid, taken, negative) = (spec("a b/..", "1"), spec("web", "1"), spec("fine", "-1"));
    let cases: [(&str, &str, &[u8], &[u16]); 9] = [
        ("GET", "/nothing/here", b"", &[404]),
        ("PATCH", "/services", b"", &[404, 405]),
        ("GET", "/services/nothing", b"", &[404]),
        ("POST", "/services/create", b"{", &[400]),
        ("POST", "/services/create", b"[1,2]", &[400]),
        ("POST", "/services/create", &huge, &[400, 413]),
        ("POST", "/services/create", invalid.as_bytes(), &[400]),
        ("POST", "/services/create", negative.as_bytes(), &[400]),
        ("POST", "/services/create", taken.as_bytes(), &[409]),
    ];
    for (method, path, body, expected) in cases {
        let (status, answer) = lab.nodes[0].api(method, path, body).with_context(|| format!("{method} {path}"))?;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        ensure!(expected.contains(&status), "{method} {path} {shown}: {status}, not {expected:?}: {answer}");
        ensure!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{method} {path}: {answer}");
    }
    Ok(())
}

pub(crate) fn an_update_of_a_stale_version_is_out_of_sequence(lab: &mut Lab) -> Result<()> {
    let (_, service) = lab.nodes[0].api("GET", "/services/web", b"")?;
    let spec = service["Spec"].to_string();
    let version = service["Version"]["Index"].as_u64().context("a version")?;
    let path = format!("/services/web/update?version={}", version.wrapping_sub(1));
    let (status, answer) = lab.nodes[1].api("POST", &path, spec.as_bytes())?;
    let message = answer["message"].as_str().unwrap_or_default();
    ensure!(status == 500 && message.ends_with("update out of sequence"), "{status} {answer}");
    Ok(())
}

pub(crate) fn impossible_services_are_refused_by_the_command(lab: &mut Lab) -> Result<()> {
    for line in [
        "service create --detach --name web whoami:latest",
        "service create --detach --name a.b/c whoami:latest",
        "service create --detach --name other --replicas -3 whoami:latest",
        "service create --detach --name other --replicas 99999999999 whoami:latest",
        "service scale web=many",
        "service scale nothing=3",
        "service rm nothing",
        "service ps nothing",
    ] {
        let said = lab.fails(line)?;
        ensure!(!said.trim().is_empty(), "{line}: it said nothing");
    }
    let said = lab.fails("service create --detach --name ghost nobody/knows:this")?;
    ensure!(said.contains("nobody/knows:this") && said.contains("image load"), "{said}");
    Ok(())
}

pub(crate) fn broken_image_archives_are_refused(lab: &mut Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = fs::read(lab.nodes[0].directory.with_file_name("whoami.tar"))?;
    let before = lab.ok("image ls")?;
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let cases: [(&str, Vec<u8>); 4] = [
        ("truncated", good[..good.len() / 2].to_vec()),
        ("wrong digest", flipped),
        ("garbage", b"this is no archive".repeat(1000)),
        ("climbing", climbing_tar()),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join("broken.tar");
        fs::write(&path, bytes)?;
        let said = lab.fails(&format!("image load {}", path.display())).with_context(|| name.to_owned())?;
        ensure!(!said.trim().is_empty(), "{name}: it said nothing");
    }
    ensure!(!folder.path().with_file_name("climbed").exists(), "a file was written outside");
    let names = |text: &str| {
        text.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let after = lab.ok("image ls")?;
    ensure!(names(&after) == names(&before), "{before}\n{after}");
    Ok(())
}

/// Returns a tar with one entry whose name climbs out of the directory.
fn climbing_tar() -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..16].copy_from_slice(b"../../../climbed");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(b"00000000004");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(b"evil");
    tar.resize(512 * 4, 0);
    tar
}

pub(crate) fn garbage_on_every_port_changes_nothing(lab: &mut Lab) -> Result<()> {
    let before = lab.nodes[0].pid()?;
    inside("shoal-demo-2", || -> Result<()> {
        let noise: Vec<u8> = (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let socket = UdpSocket::bind("198.51.100.2:0")?;
        for round in 0..200 {
            socket.send_to(&noise[round..round + 1200], "198.51.100.1:7946")?;
            // A QUIC long header of an unknown version, and of the true one.
            let mut long = noise[..1200].to_vec();
            long[..5].copy_from_slice(&[0xc0, 0, 0, 0, (round % 2) as u8]);
            socket.send_to(&long, "198.51.100.1:7946")?;
        }
        for round in 0..30 {
            let mut stream = TcpStream::connect("198.51.100.1:7946")?;
            // The node may close as soon as it sees what this is.
            let _ = stream.write_all(match round % 3 {
                0 => &noise,
                1 => b"GET / HTTP/1.1\r\n\r\n",
                _ => b"\x16\x03\x01\xff\xff\x01\xff\xff\xff",
            });
        }
        Ok(())
    })??;
    inside("shoal-demo-1", || -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        for length in 0..600 {
            socket.send_to(&vec![length as u8; length], "127.0.0.1:7953")?;
        }
        for _ in 0..10 {
            let _ = TcpStream::connect("127.0.0.1:7953")?.write_all(&[0xff; 900]);
        }
        Ok(())
    })??;
    ensure!(lab.nodes[0].pid()? == before, "the node was restarted");
    ensure!(crate::support::dns::ask(&lab.nodes[0], "web.shoal.internal")?.addresses.len() == 3, "the name is gone");
    until("all agree", || {
        let said = lab.ok("node ls")?;
        ensure!(said.matches("Ready").count() == 3, "{said}");
        Ok(())
    })
}

pub(crate) fn a_socket_or_directory_in_use_is_named(lab: &mut Lab) -> Result<()> {
    let node = &lab.nodes[0];
    let (socket, data) = (node.socket().display().to_string(), node.directory.join("data").display().to_string());
    let elsewhere = node.directory.with_file_name("elsewhere");
    let cases = [
        (socket.clone(), elsewhere.join("data").display().to_string(), socket),
        (elsewhere.join("s").display().to_string(), data.clone(), data),
    ];
    fs::create_dir_all(&elsewhere)?;
    for (socket, data, named) in cases {
        let output = Command::new(PROGRAM)
            .args([
                "--socket",
                &socket,
                "up",
                "--data-dir",
                &data,
                "--listen",
                "127.0.0.1:0",
                "--dns-listen",
                "127.0.0.1:0",
            ])
            .stdin(Stdio::null())
            .output()?;
        let said = text(&output);
        ensure!(!output.status.success() && said.contains(&named), "it does not name {named}: {said}");
    }
    lab.ok("node ls").map(drop)
}

pub(crate) fn a_port_in_use_is_named(lab: &mut Lab) -> Result<()> {
    let stranger = lab.up(0, "portless", &["--listen", "198.51.100.1:7946"])?;
    until("it ends", || lab.ended(&stranger)?.context("it still runs").map(drop))?;
    ensure!(stranger.said().contains("198.51.100.1:7946"), "{}", stranger.said());
    ensure!(stranger.said().contains("in use"), "{}", stranger.said());
    Ok(())
}

pub(crate) fn a_mistyped_token_is_refused_at_once(lab: &mut Lab) -> Result<()> {
    let token = lab.ok("join-token --quiet")?.trim().to_owned();
    let last = if token.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &token[..token.len() - 1]);
    let arguments = ["--listen", "198.51.100.3:7999", "--seed", "198.51.100.1:7946", "--token", &wrong];
    let stranger = lab.up(2, "mistyped", &arguments)?;
    until("it ends", || lab.ended(&stranger)?.context("it still runs").map(drop))?;
    ensure!(stranger.said().contains("token"), "{}", stranger.said());
    Ok(())
}
