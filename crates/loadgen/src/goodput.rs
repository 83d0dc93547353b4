//! What counts as served well: limits that a request must keep, all of them.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::Recording;

/// Limits per request; one that is not given always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goodput {
    pub ttft: Option<Duration>,
    pub tpot: Option<Duration>,
    pub e2el: Option<Duration>,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no limit; limits look like ttft:200,tpot:30,e2el:5000, in milliseconds")]
pub struct GoodputError(String);

impl FromStr for Goodput {
    type Err = GoodputError;

    fn from_str(text: &str) -> Result<Self, GoodputError> {
        let mut goodput = Self::default();
        for limit in text.split(',') {
            let wrong = || GoodputError(limit.to_owned());
            let (name, ms) = limit.split_once(':').ok_or_else(wrong)?;
            let ms: f64 = ms.trim().parse().map_err(|_| wrong())?;
            let limit = Duration::try_from_secs_f64(ms / 1e3).map_err(|_| wrong())?;
            match name.trim() {
                "ttft" => goodput.ttft = Some(limit),
                "tpot" => goodput.tpot = Some(limit),
                "e2el" => goodput.e2el = Some(limit),
                _ => return Err(wrong()),
            }
        }
        Ok(goodput)
    }
}

impl Goodput {
    pub(crate) fn is_met(&self, recording: &Recording) -> bool {
        let within = |limit: Option<Duration>, value| limit.is_none_or(|limit| value <= limit);
        within(self.ttft, recording.ttft())
            && within(self.tpot, recording.tpot().unwrap_or_default())
            && within(self.e2el, recording.e2el())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let goodput: Goodput = "ttft:200, tpot:30.5".parse().unwrap();
        assert_eq!(goodput.ttft, Some(Duration::from_millis(200)));
        assert_eq!((goodput.tpot, goodput.e2el), (Some(Duration::from_micros(30_500)), None));
        for wrong in ["", "ttft", "ttft:x", "ttft:-1", "itl:3", "ttft:nan", "ttft:1,"] {
            assert!(wrong.parse::<Goodput>().is_err(), "{wrong}");
        }
    }
}
