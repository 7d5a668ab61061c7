//! How services are rolled out: Docker's `UpdateConfig` and `RollbackConfig` to and from shoal's.

use bollard::models::{
    ServiceSpecRollbackConfig as Rollback, ServiceSpecRollbackConfigFailureActionEnum as RollbackAction,
    ServiceSpecRollbackConfigOrderEnum as RollbackOrder, ServiceSpecUpdateConfig as Update,
    ServiceSpecUpdateConfigFailureActionEnum as Action, ServiceSpecUpdateConfigOrderEnum as Order,
};
use shoal_cluster::intent::update::{DELAY_MS_MAX, FailureAction, UpdateConfig, UpdateOrder};

use super::NS_PER_MS;
use super::accept::AcceptError;

const MILLION: f64 = 1_000_000.0;

/// What Docker says in two types, field by field.
struct Fields {
    parallelism: Option<i64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    ratio: Option<f64>,
    action: FailureAction,
    order: UpdateOrder,
}

/// Returns an update configuration as shoal has it; Docker's defaults where there is none.
pub(super) fn update(config: Option<Update>) -> Result<UpdateConfig, AcceptError> {
    let Some(config) = config else { return Ok(UpdateConfig::default()) };
    let action = match config.failure_action {
        None | Some(Action::EMPTY | Action::PAUSE) => FailureAction::Pause,
        Some(Action::CONTINUE) => FailureAction::Continue,
        Some(Action::ROLLBACK) => FailureAction::Rollback,
    };
    let order = match config.order {
        None | Some(Order::EMPTY | Order::STOP_FIRST) => UpdateOrder::StopFirst,
        Some(Order::START_FIRST) => UpdateOrder::StartFirst,
    };
    let Update { parallelism, delay, monitor, max_failure_ratio: ratio, .. } = config;
    Fields { parallelism, delay, monitor, ratio, action, order }.accept("UpdateConfig")
}

/// Returns a rollback configuration as shoal has it; Docker's defaults where there is none.
pub(super) fn rollback(config: Option<Rollback>) -> Result<UpdateConfig, AcceptError> {
    let Some(config) = config else { return Ok(UpdateConfig::default()) };
    let action = match config.failure_action {
        None | Some(RollbackAction::EMPTY | RollbackAction::PAUSE) => FailureAction::Pause,
        Some(RollbackAction::CONTINUE) => FailureAction::Continue,
    };
    let order = match config.order {
        None | Some(RollbackOrder::EMPTY | RollbackOrder::STOP_FIRST) => UpdateOrder::StopFirst,
        Some(RollbackOrder::START_FIRST) => UpdateOrder::StartFirst,
    };
    let Rollback { parallelism, delay, monitor, max_failure_ratio: ratio, .. } = config;
    Fields { parallelism, delay, monitor, ratio, action, order }.accept("RollbackConfig")
}

impl Fields {
    fn accept(self, field: &'static str) -> Result<UpdateConfig, AcceptError> {
        let wrong = |reason: &str| AcceptError::Invalid { field, reason: reason.to_owned() };
        let parallelism = u32::try_from(self.parallelism.unwrap_or_default())
            .map_err(|_| wrong("Parallelism is negative or too large"))?;
        let milliseconds = |ns: i64| {
            let ms = u64::try_from(ns).ok().map(|ns| ns.div_ceil(NS_PER_MS.unsigned_abs()));
            ms.filter(|ms| *ms <= DELAY_MS_MAX).ok_or_else(|| wrong("Delay and Monitor must be between 0 and 30 days"))
        };
        let ratio = self.ratio.unwrap_or_default();
        if !(0.0..=1.0).contains(&ratio) {
            return Err(wrong("MaxFailureRatio must be between 0 and 1"));
        }
        // As with Docker, no monitor time is the default one.
        let monitor = self.monitor.filter(|ns| *ns != 0).map(milliseconds).transpose()?;
        Ok(UpdateConfig {
            parallelism,
            delay_ms: milliseconds(self.delay.unwrap_or_default())?,
            monitor_ms: monitor.unwrap_or(UpdateConfig::default().monitor_ms),
            failure_action: self.action,
            failure_ratio_max_ppm: (ratio * MILLION).round() as u32,
            order: self.order,
        })
    }
}

/// Returns an update configuration as Docker has it.
pub(super) fn show_update(config: &UpdateConfig) -> Update {
    Update {
        parallelism: Some(i64::from(config.parallelism)),
        delay: Some(nanoseconds(config.delay_ms)),
        failure_action: Some(match config.failure_action {
            FailureAction::Pause => Action::PAUSE,
            FailureAction::Continue => Action::CONTINUE,
            FailureAction::Rollback => Action::ROLLBACK,
        }),
        monitor: Some(nanoseconds(config.monitor_ms)),
        max_failure_ratio: Some(f64::from(config.failure_ratio_max_ppm) / MILLION),
        order: Some(match config.order {
            UpdateOrder::StopFirst => Order::STOP_FIRST,
            UpdateOrder::StartFirst => Order::START_FIRST,
        }),
    }
}

/// Returns a rollback configuration as Docker has it.
pub(super) fn show_rollback(config: &UpdateConfig) -> Rollback {
    Rollback {
        parallelism: Some(i64::from(config.parallelism)),
        delay: Some(nanoseconds(config.delay_ms)),
        failure_action: Some(match config.failure_action {
            // A spec with a rollback that rolls back is never accepted.
            FailureAction::Pause | FailureAction::Rollback => RollbackAction::PAUSE,
            FailureAction::Continue => RollbackAction::CONTINUE,
        }),
        monitor: Some(nanoseconds(config.monitor_ms)),
        max_failure_ratio: Some(f64::from(config.failure_ratio_max_ppm) / MILLION),
        order: Some(match config.order {
            UpdateOrder::StopFirst => RollbackOrder::STOP_FIRST,
            UpdateOrder::StartFirst => RollbackOrder::START_FIRST,
        }),
    }
}

fn nanoseconds(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(NS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_sends_is_shown_as_it_was_sent_and_nothing_means_its_defaults() {
        let config = Update {
            parallelism: Some(2),
            delay: Some(10_000_000_000),
            failure_action: Some(Action::ROLLBACK),
            monitor: Some(1_500_000_000),
            max_failure_ratio: Some(0.3),
            order: Some(Order::START_FIRST),
        };
        assert_eq!(show_update(&update(Some(config.clone())).unwrap()), config);
        let none = update(None).unwrap();
        assert_eq!((none.parallelism, none.monitor_ms, none.failure_action), (1, 5_000, FailureAction::Pause));
        let zero = Update { parallelism: Some(0), monitor: Some(0), ..Update::default() };
        let zero = update(Some(zero)).unwrap();
        assert_eq!((zero.parallelism, zero.monitor_ms), (0, 5_000), "all at once, and the default monitor time");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |edit: fn(&mut Update)| {
            let mut config = Update::default();
            edit(&mut config);
            update(Some(config)).unwrap_err().to_string()
        };
        assert!(with(|config| config.parallelism = Some(-1)).contains("Parallelism"));
        assert!(with(|config| config.delay = Some(-1)).contains("Delay"));
        assert!(with(|config| config.monitor = Some(i64::MAX)).contains("30 days"));
        assert!(with(|config| config.max_failure_ratio = Some(1.5)).contains("between 0 and 1"));
        assert!(with(|config| config.max_failure_ratio = Some(f64::NAN)).contains("between 0 and 1"));
    }
}
