//! Weights as the kernels stream them: fused parts side by side, each in the kind that holds its format exactly.

mod kind;
mod record;

use quant::Stored;
use tensor::{ActSet, Encoding, LoadError, Role};

use super::arena::{Lines, Shared};
use super::pool::Pool;
use super::simd::LANES;
use crate::parts::Limits;
pub(super) use kind::Kind;

/// Tiles of 16 outputs in a strip, which a matmul takes at once; segments are padded to whole strips.
pub(super) const STRIP: usize = 4;
pub(super) const STRIP_COLS: usize = STRIP * LANES;
const LIMITS: Limits = Limits { cols: LANES, glu_rows: LANES, name: "CPU", hint: "; use --device reference" };

/// One matrix, packed, `rows` outputs by `cols` inputs; or a stack of experts of that shape, each a segment.
pub struct Weight {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Of the activations that its coded segments multiply.
    pub(super) codes: Encoding,
    pub(super) segments: Vec<Segment>,
}

/// Consecutive outputs that are held in one way.
pub(super) struct Segment {
    pub kind: Kind,
    /// Its first output; 0 for every expert.
    pub first: usize,
    /// Its outputs, without padding.
    pub rows: usize,
    strip_bytes: usize,
    data: Lines,
}

impl Weight {
    /// Packs `parts` stacked along the output; gate and up of a [`Role::Glu`] alternate tile by tile.
    pub(super) fn pack(pool: &Pool, parts: &[Stored<'_>], role: Role, codes: Encoding) -> Result<Self, LoadError> {
        let cols = LIMITS.check(parts, role)?;
        let mut segments: Vec<Segment> = match role {
            Role::Glu | Role::ExpertsGlu => parts.chunks(2).map(|pair| Segment::pair(pool, pair)).collect(),
            _ => parts.iter().map(|part| Segment::whole(pool, part)).collect(),
        };
        let rows = match role {
            Role::Experts | Role::ExpertsGlu => segments[0].rows,
            _ => line_up(&mut segments),
        };
        Ok(Self { rows, cols, codes, segments })
    }

    /// The encodings of activations that it multiplies.
    pub(super) fn wants(&self) -> ActSet {
        let sets = self.segments.iter().map(|segment| ActSet::of(segment.kind.wants(self.codes)));
        sets.fold(ActSet::EMPTY, ActSet::union)
    }

    /// Strips of all segments.
    pub(super) fn strips(&self) -> usize {
        self.segments.iter().map(Segment::strips).sum()
    }

    /// The segment of strip `strip`, counted over all segments, and which of its strips it is.
    pub(super) fn locate(&self, mut strip: usize) -> (&Segment, usize) {
        let mut segments = self.segments.iter();
        loop {
            let segment = segments.next().expect("the weight has that many strips");
            match strip.checked_sub(segment.strips()) {
                Some(beyond) => strip = beyond,
                None => return (segment, strip),
            }
        }
    }

    /// The first byte of strip `strip`, counted over all segments, where there is one.
    pub(super) fn strip_at(&self, strip: usize) -> Option<*const u8> {
        (strip < self.strips()).then(|| {
            let (segment, strip) = self.locate(strip);
            segment.strip(strip)
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.data.bytes() as u64).sum()
    }

    /// Output row `row`, as f32, into `out [cols]`.
    pub(super) fn unpack_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {}", self.rows);
        let segment = self.segments.iter().rfind(|segment| segment.first <= row).expect("a segment starts at 0");
        let (strip, col) = ((row - segment.first) / STRIP_COLS, (row - segment.first) % STRIP_COLS);
        // SAFETY: the strip lies within the data.
        let strip = unsafe { std::slice::from_raw_parts(segment.strip(strip), segment.strip_bytes) };
        for (k, value) in out.iter_mut().enumerate() {
            *value = record::element(segment.kind, strip, col, k);
        }
    }
}

impl Segment {
    /// Packs gate and up of one gated unit.
    fn pair(pool: &Pool, parts: &[Stored<'_>]) -> Self {
        let (gate, up) = (Kind::of(&parts[0]), Kind::of(&parts[1]));
        let kind = if gate == up { gate } else { Kind::F32 };
        let source = |row: usize| (row / LANES % 2, row / LANES / 2 * LANES + row % LANES);
        Self::pack(pool, kind, 2 * parts[0].rows, parts, &source)
    }

    fn whole(pool: &Pool, part: &Stored<'_>) -> Self {
        Self::pack(pool, Kind::of(part), part.rows, std::slice::from_ref(part), &|row| (0, row))
    }

    /// Packs the rows that `source` names by part and row.
    fn pack(
        pool: &Pool,
        kind: Kind,
        rows: usize,
        parts: &[Stored<'_>],
        source: &(dyn Fn(usize) -> (usize, usize) + Sync),
    ) -> Self {
        let (strips, strip_bytes) = (rows.div_ceil(STRIP_COLS), kind.strip_bytes(parts[0].cols));
        let mut data = Lines::zeroed(strips * strip_bytes);
        let out = Shared(data.as_mut_ptr());
        pool.run(strips, &|strip| {
            // SAFETY: each strip is written by one thread, and the strips lie side by side within `data`.
            let bytes = unsafe { std::slice::from_raw_parts_mut(out.get().add(strip * strip_bytes), strip_bytes) };
            for row in (strip * STRIP_COLS..rows).take(STRIP_COLS) {
                let (part, part_row) = source(row);
                record::pack(kind, &parts[part], part_row, row % STRIP_COLS, bytes);
            }
        });
        Self { kind, first: 0, rows, strip_bytes, data }
    }

    pub fn strips(&self) -> usize {
        self.rows.div_ceil(STRIP_COLS)
    }

    /// The strip's first byte.
    pub fn strip(&self, strip: usize) -> *const u8 {
        let offset = strip * self.strip_bytes;
        assert!(offset < self.data.bytes(), "strip {strip} is beyond the weight");
        // SAFETY: within the data, as just checked.
        unsafe { self.data.as_ptr().add(offset) }
    }
}

/// Places segments side by side; returns the outputs of all.
fn line_up(segments: &mut [Segment]) -> usize {
    segments.iter_mut().fold(0, |first, segment| {
        segment.first = first;
        first + segment.rows
    })
}
