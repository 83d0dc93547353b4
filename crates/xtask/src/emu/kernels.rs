//! The kernels that a preprocessed kernel file declares: `extern "C" __global__` functions and their launch bounds.

/// A kernel's name, and the first argument of its `__launch_bounds__` as it is written.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    pub max_threads: Option<String>,
}

const MARK: &str = "extern \"C\" __global__";
const BOUNDS: &str = "__launch_bounds__";

/// All kernels, in order. A declaration without a body counts too, once.
pub fn find(code: &str) -> Vec<Kernel> {
    // White space is free between the words of the mark.
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut kernels: Vec<Kernel> = Vec::new();
    for (start, _) in code.match_indices(MARK) {
        if let Some(kernel) = parse(&code[start + MARK.len()..])
            && kernels.iter().all(|known| known.name != kernel.name)
        {
            kernels.push(kernel);
        }
    }
    kernels
}

/// Reads `void __launch_bounds__(128) name(...`, or the same in another order.
fn parse(declaration: &str) -> Option<Kernel> {
    let mut max_threads = None;
    let mut rest = declaration;
    loop {
        let open = rest.find('(')?;
        let before = rest[..open].trim_end();
        let name = before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next()?;
        if name != BOUNDS {
            return (!name.is_empty()).then(|| Kernel { name: name.to_owned(), max_threads });
        }
        let arguments = &rest[open + 1..open + closing(&rest[open..])?];
        max_threads = Some(first_argument(arguments).trim().to_owned());
        rest = &rest[open + arguments.len() + 2..];
    }
}

/// Where the parenthesis closes that `text` begins with.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn first_argument(arguments: &str) -> &str {
    let mut depth = 0;
    for (at, c) in arguments.char_indices() {
        match c {
            '(' | '<' | '{' => depth += 1,
            ')' | '>' | '}' => depth -= 1,
            ',' if depth == 0 => return &arguments[..at],
            _ => {}
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found() {
        for (code, expected) in [
            ("", vec![]),
            ("extern \"C\" __global__ void copy(const float* x) {}", vec![("copy", None)]),
            ("extern \"C\"  __global__\nvoid __launch_bounds__(256)\ncopy(int n) {}", vec![("copy", Some("256"))]),
            ("extern \"C\" __global__ __launch_bounds__(32 * (W), 2) void copy() {}", vec![("copy", Some("32 * (W)"))]),
            ("extern \"C\" __global__ void a(); extern \"C\" __global__ void a() {}", vec![("a", None)]),
            ("extern \"C\" __global__ void a() {} extern \"C\" __global__ void b() {}", vec![("a", None), ("b", None)]),
            ("__global__ void inner() {} template <int N> __global__ void t() {}", vec![]),
        ] {
            let found = find(code);
            let found: Vec<_> = found.iter().map(|k| (k.name.as_str(), k.max_threads.as_deref())).collect();
            assert_eq!(found, expected, "{code}");
        }
    }
}
