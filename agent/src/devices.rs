//! The GPUs of this machine: which of them work for the hub, and what the provider is told of them.
//!
//! Owns the choice. Each chosen device is opened by the slot that it computes for.

use std::fmt;
use std::str::FromStr;

use tessera_cuda::{DeviceInfo, discover};
use tessera_protocol::limits;
use tessera_protocol::wire::Gpu;

/// Which GPUs an agent uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GpuChoice {
    /// Every one that can run the kernels; none is no mistake.
    #[default]
    All,
    /// None.
    None,
    /// These, by the driver's numbers.
    Only(Vec<u32>),
}

/// A text that is no [`GpuChoice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseGpuChoiceError;

impl fmt::Display for ParseGpuChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected `all`, `none` or numbers of GPUs, as in 0,1")
    }
}

impl std::error::Error for ParseGpuChoiceError {}

impl FromStr for GpuChoice {
    type Err = ParseGpuChoiceError;
    fn from_str(text: &str) -> Result<GpuChoice, ParseGpuChoiceError> {
        match text {
            "all" => Ok(GpuChoice::All),
            "none" => Ok(GpuChoice::None),
            numbers => {
                let numbers =
                    numbers.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>();
                numbers.map(GpuChoice::Only).map_err(|_| ParseGpuChoiceError)
            }
        }
    }
}

/// The GPUs to use. Says in one line each what is used, or why none is.
pub(crate) fn choose(choice: &GpuChoice) -> Vec<DeviceInfo> {
    if *choice == GpuChoice::None {
        return Vec::new();
    }
    let found = match discover() {
        Ok(found) => found,
        Err(reason) => {
            // Asked for by number, a GPU that is not there is worth a warning.
            match choice {
                GpuChoice::Only(_) => tracing::warn!("{reason}"),
                GpuChoice::All | GpuChoice::None => tracing::info!("{reason}"),
            }
            return Vec::new();
        }
    };
    let chosen = chosen(choice, found);
    for device in &chosen {
        let (memory_mib, (major, minor)) = (device.memory_bytes >> 20, device.compute_capability);
        tracing::info!(
            "GPU {}: {}, {memory_mib} MiB, compute capability {major}.{minor}",
            device.ordinal,
            device.name
        );
    }
    chosen
}

fn chosen(choice: &GpuChoice, found: Vec<DeviceInfo>) -> Vec<DeviceInfo> {
    if let GpuChoice::Only(numbers) = choice {
        for number in numbers {
            if !found.iter().any(|device| device.ordinal == *number) {
                tracing::warn!("GPU {number}: there is none of this number that can run the kernels");
            }
        }
    }
    let wanted = |device: &DeviceInfo| match choice {
        GpuChoice::All => true,
        GpuChoice::None => false,
        GpuChoice::Only(numbers) => numbers.contains(&device.ordinal),
    };
    found.into_iter().filter(wanted).take(limits::GPUS_MAX).collect()
}

/// A device as the hub is told of it.
pub(crate) fn offered(device: &DeviceInfo) -> Gpu {
    let (major, minor) = device.compute_capability;
    Gpu {
        name: device.name.chars().filter(|c| !c.is_control()).take(limits::NAME_BYTES_MAX / 4).collect(),
        memory_bytes: device.memory_bytes,
        compute_capability: [major as u16, minor as u16],
        driver: format!("{}.{}", device.driver.0, device.driver.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: u32) -> DeviceInfo {
        DeviceInfo {
            ordinal,
            name: "Tesla".into(),
            memory_bytes: 1 << 34,
            compute_capability: (9, 0),
            driver: (12, 4),
        }
    }

    #[test]
    fn a_choice_is_a_word_or_numbers() {
        assert_eq!("all".parse(), Ok(GpuChoice::All));
        assert_eq!("none".parse(), Ok(GpuChoice::None));
        assert_eq!("0, 2".parse(), Ok(GpuChoice::Only(vec![0, 2])));
        for wrong in ["", "some", "-1", "0,,1"] {
            assert_eq!(wrong.parse::<GpuChoice>(), Err(ParseGpuChoiceError), "{wrong:?}");
        }
    }

    #[test]
    fn only_the_chosen_devices_are_used() {
        let ordinals = |choice| {
            let found = (0..3).map(device).collect();
            chosen(&choice, found).iter().map(|device| device.ordinal).collect::<Vec<_>>()
        };
        assert_eq!(ordinals(GpuChoice::All), [0, 1, 2]);
        assert_eq!(ordinals(GpuChoice::None), [0; 0]);
        assert_eq!(ordinals(GpuChoice::Only(vec![2, 7])), [2]);
        assert_eq!(offered(&device(1)).driver, "12.4");
    }
}
