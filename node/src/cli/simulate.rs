//! `shoal simulate`: loses nodes of a simulated shoal that runs the operator's own services on their own nodes. Asks no
//! node and changes nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shoal_cluster::intent::service::ServiceSpec;
use shoal_simulations::drill::{self, Kill, Services};

use super::stack;
use crate::api::accept_outline;

/// What to try.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The services: a Compose file (.yml, .yaml), or TOML: `[[service]]` with name, replicas and placement.
    #[arg(long, value_name = "FILE", alias = "services")]
    stack: PathBuf,
    /// The nodes, in TOML: `[[node]]` with name, cpus, memory_mib and labels.
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,
    /// Whom to lose: any:2 for every two nodes, or names separated by commas.
    #[arg(long, value_name = "WHOM", default_value = "any:1")]
    kill: Kill,
    /// Fail if a service is without any replica for longer than this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    down_max: u64,
    /// Where all randomness comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Simulates each loss; fails if a service stays below its replicas or is gone for too long.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let (services, nodes) = (services(&args.stack)?, drill::read(&args.nodes)?);
    let drill = drill::drill(&services, &nodes, &args.kill, args.seed)?;
    print!("{drill}");
    let holds = drill.holds(Duration::from_secs(args.down_max));
    println!("{}", if holds { "every service holds" } else { "some services do not hold" });
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Reads the services, from a Compose file if it is called like one. Only how many they are, what they reserve and where
/// they may run is of account.
fn services(path: &Path) -> anyhow::Result<Vec<ServiceSpec>> {
    let is_compose = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
    if !is_compose {
        return Ok(drill::read::<Services>(path)?.specs()?);
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let stack = stack::read(&[path.to_owned()], &name)?;
    let services = stack.services.iter().map(accept_outline).collect::<Result<Vec<ServiceSpec>, _>>()?;
    if let Some(job) = services.iter().find(|service| service.mode.is_job()) {
        anyhow::bail!("{} is a job (replicated-job or global-job), and jobs are not simulated: remove it", job.name);
    }
    Ok(services)
}

#[cfg(test)]
mod tests {
    use shoal_cluster::intent::service::Mode;

    use super::*;

    #[test]
    fn a_compose_file_says_what_is_simulated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.yml");
        let text = "services: { db: { image: db, deploy: { mode: global } }, web: { image: web:1, deploy: { replicas: 4, \
                    resources: { reservations: { cpus: '1.5' } }, placement: { constraints: [node.labels.disk==ssd] } } } }";
        std::fs::write(&path, text).unwrap();
        let services = services(&path).unwrap();
        assert_eq!((services[0].name.folded(), services[0].mode), ("shop_db", Mode::Global));
        assert_eq!((services[1].name.folded(), services[1].replicas), ("shop_web", 4));
        assert_eq!(services[1].reserved.nano_cpus, 1_500_000_000);
        assert_eq!(services[1].placement.constraints[0].to_string(), "node.labels.disk==ssd");
        std::fs::write(&path, "services: { web: { image: web, deploy: { mode: replicated-job } } }").unwrap();
        assert!(super::services(&path).unwrap_err().to_string().contains("replicated-job"));
    }
}
