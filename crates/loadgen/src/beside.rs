//! How long running streams wait while other prompts are computed beside them.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{Failure, Recording, Summary};

/// What prompts that were sent one at a time, with a pause as long as each took, did to the streams. Only those count that
/// were sent after every stream had begun, and answered before any ended: other prompts made nobody wait then. Milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    /// Words in each prompt.
    pub input_len: usize,
    pub sent: usize,
    pub counted: usize,
    pub ttft: Option<Summary>,
    /// The longest gap of any stream while a prompt was computed.
    pub gap: Option<Summary>,
    /// The longest gap while none was.
    pub gap_alone: Option<f64>,
    /// Why one failed; it was the last.
    pub failure: Option<String>,
}

type Span = (Instant, Instant);

impl Beside {
    /// `prompts` of `input_len` words, beside `streams`.
    pub fn new(input_len: usize, streams: &[&Recording], prompts: &[Result<Recording, Failure>]) -> Self {
        let began = streams.iter().filter_map(|stream| stream.span()).map(|span| span.0).max();
        let ended = streams.iter().filter_map(|stream| stream.span()).map(|span| span.1).min();
        let all: Vec<Span> = prompts.iter().flatten().map(Recording::waiting).collect();
        let is_within =
            |span: &Span| began.is_some_and(|began| span.0 >= began) && ended.is_some_and(|ended| span.1 <= ended);
        let counted: Vec<Span> = all.iter().copied().filter(is_within).collect();
        let gaps: Vec<Span> = streams.iter().flat_map(|stream| stream.spans()).filter(is_within).collect();
        let meanwhile = |prompt: &Span| longest(gaps.iter().filter(|gap| overlap(gap, prompt)));
        let alone = gaps.iter().filter(|gap| !all.iter().any(|prompt| overlap(gap, prompt)));
        Self {
            input_len,
            sent: prompts.len(),
            counted: counted.len(),
            ttft: Summary::of(counted.iter().map(ms).collect()),
            gap: Summary::of(counted.iter().filter_map(meanwhile).collect()),
            gap_alone: longest(alone),
            failure: prompts.iter().find_map(|prompt| prompt.as_ref().err()).map(Failure::to_string),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "input_len": self.input_len,
            "sent": self.sent,
            "counted": self.counted,
            "median_ttft_ms": self.ttft.map(|ttft| ttft.median()),
            "max_ttft_ms": self.ttft.map(|ttft| ttft.max),
            "median_max_itl_ms": self.gap.map(|gap| gap.median()),
            "max_itl_ms": self.gap.map(|gap| gap.max),
            "max_itl_alone_ms": self.gap_alone,
            "error": self.failure,
        })
    }

    /// For people.
    pub(crate) fn sentence(&self) -> String {
        let Self { input_len, sent, counted, .. } = self;
        if let Some(failure) = &self.failure {
            return format!("a prompt of {input_len} words beside them failed: {failure}");
        }
        let (Some(ttft), Some(gap)) = (self.ttft, self.gap) else {
            return format!(
                "of {sent} prompts of {input_len} words none fell into the time in which all streams ran; a longer \
                 --output-len makes room for some"
            );
        };
        let alone = self.gap_alone.map_or_else(String::new, |gap| format!(", {gap:.1} ms at other times"));
        format!(
            "beside them, prompts of {input_len} words ({counted} of {sent} count): TTFT {:.1} ms (median), while a stream waited {:.1} ms \
             (median of the longest gaps) and {:.1} ms at most{alone}",
            ttft.median(),
            gap.median(),
            gap.max
        )
    }
}

fn overlap(a: &Span, b: &Span) -> bool {
    a.0 < b.1 && b.0 < a.1
}

fn ms(span: &Span) -> f64 {
    (span.1 - span.0).as_secs_f64() * 1e3
}

fn longest<'a>(spans: impl Iterator<Item = &'a Span>) -> Option<f64> {
    spans.map(ms).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sent at the first of these milliseconds, with a piece at each of the others.
    fn recorded(origin: Instant, times: &[u64]) -> Recording {
        let at = |ms: &u64| origin + Duration::from_millis(*ms);
        let mut recording = Recording::new(at(&times[0]));
        for time in &times[1..] {
            recording.take(br#"{"choices":[{"text":"a"}]}"#, at(time)).unwrap();
        }
        recording
    }

    #[test]
    fn gaps_count_while_all_streams_run() {
        let origin = Instant::now();
        // The first waits 400 ms before the other begins, 30 ms for a prompt, 12 ms for none; the other ends at 560.
        let streams = [
            recorded(origin, &[0, 10, 410, 505, 510, 540, 550, 562, 700]),
            recorded(origin, &[0, 500, 506, 512, 530, 548, 560]),
        ];
        let prompts = [&[0, 300], &[515, 535], &[555, 600]].map(|times| Ok(recorded(origin, times)));
        let beside = Beside::new(1024, &streams.iter().collect::<Vec<_>>(), &prompts);
        assert_eq!((beside.sent, beside.counted), (3, 1));
        let ms = |value: f64| value.round() as u64;
        assert_eq!(beside.ttft.map(|ttft| ms(ttft.max)), Some(20));
        assert_eq!((beside.gap.map(|gap| ms(gap.max)), beside.gap_alone.map(ms)), (Some(30), Some(10)));
        assert!(beside.sentence().contains("30.0 ms at most, 10.0 ms at other times"), "{}", beside.sentence());
    }

    #[test]
    fn none_that_counts_is_said() {
        let beside = Beside::new(8, &[], &[]);
        assert!(beside.sentence().contains("a longer --output-len") && beside.to_json()["max_itl_ms"].is_null());
    }
}
