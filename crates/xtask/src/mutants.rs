//! `cargo xtask mutants`: breaks each CUDA kernel in one place at a time, and shows that its tests notice.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::check::Built;
use crate::emu::{self, Sanitizer};

/// One mistake.
struct Mutant {
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
    /// Who notices, where a plain run may not.
    sanitizer: Option<Sanitizer>,
}

const fn mutant(file: &'static str, what: &'static str, from: &'static str, to: &'static str) -> Mutant {
    Mutant { file, what, from, to, sanitizer: None }
}

const MUTANTS: &[Mutant] = &[
    mutant("include/vectors.cuh", "a barrier is missing", "__syncthreads();", ""),
    mutant("norm.cu", "a column is not counted", " + v.w * v.w;", ";"),
    mutant(
        "include/gemm_pipeline.cuh",
        "a wait is too short",
        "cp_async_wait<STAGES - 2>();",
        "cp_async_wait<STAGES - 1>();",
    ),
    mutant("include/gemm_pipeline.cuh", "a barrier is missing", "__syncthreads();", ""),
    mutant(
        "include/last_block.cuh",
        "a counter is not reset",
        "atomicInc(counter, count - 1)",
        "atomicAdd(counter, 1u)",
    ),
    mutant(
        "include/gemm_tile.cuh",
        "a fragment is transposed",
        "lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2",
        "lane / 8 % 2 * 8 + lane % 8, step * 2 + lane / 16",
    ),
    mutant(
        "include/gemm_tile.cuh",
        "inputs beyond the last are read",
        "first + row < rows && column < k",
        "first + row < rows",
    ),
    mutant("include/gemm_out.cuh", "a gate is upside down", "__expf(-y)", "__expf(y)"),
    Mutant {
        file: "include/gemm_out.cuh",
        what: "rows beyond the last are written",
        from: "if (row >= p.m) return;",
        to: "",
        sanitizer: Some(Sanitizer::Address),
    },
    mutant("include/gemm_coded.cuh", "a nibble is the wrong one", "lop3<AND_OR>(word >> 4,", "lop3<AND_OR>(word >> 8,"),
    mutant("gemm_coded.cu", "a sign is lost", "0x00800080u", "0x00000000u"),
    mutant("include/gemm_coded.cuh", "a minimum is not added", "__fmaf_rn(factors.y,", "__fmaf_rn(0.0f * factors.y,"),
    mutant("include/gemm_coded.cuh", "a split begins without its scales", "is_first || ", ""),
    mutant("gemm_int4.cu", "a zero is another output's", "meta[n * 8 + lane / 4]", "meta[n * 8 + lane % 8]"),
    mutant("permute.cu", "an input is out of order", "x[low] |", "x[column] |"),
    mutant("include/super_blocks.cuh", "a minimum is a scale", "fields >> 12", "fields >> 0"),
    mutant("gemm_super.cu", "a code's upper bits are its neighbour's", "bits << (4 - at)", "bits >> (4 - at)"),
    mutant("include/paged_attention.cuh", "a token does not see itself", "key <= position &&", "key < position &&"),
    mutant("include/paged_attention.cuh", "a window is one too wide", "key > oldest ?", "key >= oldest ?"),
    mutant("gemm_fp8.cu", "a scale is another row's", "x_scales[m * 16 + half * 8]", "x_scales[m * 16]"),
    mutant(
        "gemm_fp8.cu",
        "scales of the first 128 inputs serve all",
        "g.meta) + static_cast<size_t>(step)",
        "g.meta) + 0 * static_cast<size_t>(step)",
    ),
    mutant("include/e4m3.cuh", "not a number is hidden", "scale == 0.0f ? 1.0f : scale", "scale > 0.0f ? scale : 1.0f"),
    mutant("include/e4m3_rows.cuh", "a short group reads on", "inside ? value(at)", "true ? value(at)"),
    mutant(
        "include/paged_attention.cuh",
        "memory beyond the context is read",
        "position >= from && position < to;",
        "position >= from;",
    ),
    mutant("include/attention_rows.cuh", "a span weighs too much", "exp2f(later - max))", "1.0f)"),
    mutant("include/attention_rows.cuh", "a sink is not counted", "exp2f(sink - peak))", "0.0f)"),
    mutant(
        "include/paged_attention.cuh",
        "the last span is not merged",
        "span * SPAN <= position;",
        "span * SPAN < position;",
    ),
    mutant(
        "include/paged_attention.cuh",
        "a block merges too early",
        "return arrived[0] == expected - 1;",
        "return arrived[0] == 0;",
    ),
    mutant(
        "include/paged_attention.cuh",
        "arrivals are never forgotten",
        "atomicInc(arrivals, expected - 1)",
        "atomicAdd(arrivals, 1)",
    ),
    mutant(
        "include/kv_fragments.cuh",
        "a byte is the wrong one",
        "e4m3_to_bf16(words[n] << 8)",
        "e4m3_to_bf16(words[n])",
    ),
    mutant(
        "include/rope_head.cuh",
        "a rotation goes the other way",
        "__fmaf_rn(b, cos, __fmul_rn(a, sin))",
        "__fmaf_rn(b, cos, -__fmul_rn(a, sin))",
    ),
    mutant("include/rope_head.cuh", "a head is not normalized", "warp_sum(squares) / p.head_dim", "1.0f"),
    mutant("include/experts.cuh", "every row goes to the first expert", "tile.x * p.w_bytes", "0 * p.w_bytes"),
    mutant("include/experts.cuh", "scales are the first expert's", "tile.x * p.meta_bytes", "0 * p.meta_bytes"),
    mutant("moe_rows.cu", "a row's scale is another token's", "p.from_stride + token]", "p.from_stride]"),
    mutant("moe_route.cu", "an expert is picked twice", "taken |= 1u", "taken |= 0u"),
    mutant(
        "moe_sort.cu",
        "an expert's rows begin where another's end",
        "first_row = first_tile * p.tile_rows",
        "first_row = first_tile",
    ),
    mutant(
        "moe_sort.cu",
        "a barrier is missing",
        "found[warp] = __popc(mine);\n    __syncthreads();",
        "found[warp] = __popc(mine);",
    ),
    mutant(
        "moe_rows.cu",
        "a slot is not weighted",
        "const float weight = weights[slot];",
        "const float weight = weights[0];",
    ),
    mutant("logits.cu", "a tile ends too early", "min((tile + 1) * TILE,", "min((tile + 1) * TILE - 1,"),
    mutant(
        "include/logits.cuh",
        "an exponential is fused",
        "__fadd_rn(__fmul_rn(sum, f), next)",
        "__fmaf_rn(sum, f, next)",
    ),
    mutant("include/select.cuh", "a carry is lost", "atomicAdd(&s.high[bin], 1u);", "{}"),
    mutant(
        "include/select.cuh",
        "a bin's neighbour is taken",
        "before < wanted && wanted <= before + sums[idx]",
        "before <= wanted && wanted < before + sums[idx]",
    ),
    mutant("logprobs.cu", "a penalty is not put back", "put_back(edits.counts, row.num_counts, 2);", ""),
    mutant("rows.cu", "an embedding lacks its minimum", "(scale * code + min)", "(scale * code + 0.0f * min)"),
];

/// True when each is noticed.
pub fn run(root: &Path) -> Result<bool> {
    let tree = root.join("target/mutants");
    copy_kernels(root, &tree)?;
    let built = Built::of(root)?;
    let tests = &built.library_tests("kernels")?.path;
    ensure!(passes(&tree, tests, None)?, "the tests fail without any mistake");
    let mut missed = 0;
    for mutant in MUTANTS {
        let path = tree.join("kernels/cuda").join(mutant.file);
        let source = fs::read_to_string(&path)?;
        ensure!(source.contains(mutant.from), "{} has no {:?}", mutant.file, mutant.from);
        fs::write(&path, source.replacen(mutant.from, mutant.to, 1))?;
        let survived = passes(&tree, tests, mutant.sanitizer);
        fs::write(&path, source)?;
        let survived = survived?;
        missed += usize::from(survived);
        println!("{:<9} {}: {}", if survived { "MISSED" } else { "noticed" }, mutant.file, mutant.what);
    }
    println!("{} noticed, {missed} missed", MUTANTS.len() - missed);
    Ok(missed == 0)
}

/// A tree with the emulator as it is and the kernels' files anew.
fn copy_kernels(root: &Path, tree: &Path) -> Result<()> {
    let (from, to) = (root.join("kernels"), tree.join("kernels"));
    fs::create_dir_all(to.join("cuda/include"))?;
    fs::create_dir_all(to.join("cuda/conformance"))?;
    fs::remove_file(to.join("emu")).ok();
    std::os::unix::fs::symlink(from.join("emu"), to.join("emu"))?;
    for folder in ["cuda", "cuda/include", "cuda/conformance"] {
        for entry in fs::read_dir(from.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                fs::copy(&path, to.join(folder).join(path.file_name().context("a file has a name")?))?;
            }
        }
    }
    Ok(())
}

/// Whether the kernels of `tree` pass the tests. Kernels that do not compile, or hang, do not.
fn passes(tree: &Path, tests: &Path, sanitizer: Option<Sanitizer>) -> Result<bool> {
    let folder = emu::build(tree, sanitizer)?;
    let mut command = Command::new("timeout");
    command.arg("120").arg(tests).arg("cuda::tests").env("LD_LIBRARY_PATH", &folder);
    if let Some(sanitizer) = sanitizer {
        emu::watch(sanitizer, &folder, &mut command)?;
    }
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().context("cannot start the tests")?;
    Ok(status.success())
}
