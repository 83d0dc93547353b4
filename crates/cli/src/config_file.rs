//! `--config FILE`: options from a TOML file, put in front of the command line so that the command line wins.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};

/// Inserts the file's options after the subcommand, but for those that the environment sets (`in_env`).
///
/// # Errors
/// If the file cannot be read, is no TOML, or holds anything but strings, numbers, booleans and lists of them.
pub fn expand(argv: Vec<OsString>, in_env: impl Fn(&str) -> bool) -> Result<Vec<OsString>> {
    let Some(path) = named_file(&argv).or_else(|| std::env::var_os("TOKENMILL_CONFIG")) else { return Ok(argv) };
    let shown = path.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the config file {shown}"))?;
    let table: toml::Table = text.parse().with_context(|| format!("the config file {shown} is not valid TOML"))?;
    let mut options = Vec::new();
    for (key, value) in &table {
        let name = key.replace('_', "-");
        if !in_env(&format!("TOKENMILL_{}", name.replace('-', "_").to_uppercase())) {
            push(&mut options, &name, value).with_context(|| format!("in the config file {shown}"))?;
        }
    }
    let subcommands = if argv.get(1).is_some_and(|first| first == "bench") { 2 } else { 1 };
    let after_subcommand = argv.len().min(1 + subcommands);
    let mut expanded = argv;
    expanded.splice(after_subcommand..after_subcommand, options);
    Ok(expanded)
}

fn named_file(argv: &[OsString]) -> Option<OsString> {
    argv.iter().enumerate().find_map(|(idx, arg)| match arg.to_str()? {
        "--config" => argv.get(idx + 1).cloned(),
        other => other.strip_prefix("--config=").map(OsString::from),
    })
}

fn push(options: &mut Vec<OsString>, name: &str, value: &toml::Value) -> Result<()> {
    let mut option = |value: &dyn std::fmt::Display| options.push(format!("--{name}={value}").into());
    match value {
        toml::Value::String(text) => option(text),
        toml::Value::Integer(number) => option(number),
        toml::Value::Float(number) => option(number),
        toml::Value::Boolean(true) => options.push(format!("--{name}").into()),
        toml::Value::Boolean(false) => {}
        toml::Value::Array(items) => items.iter().try_for_each(|item| push(options, name, item))?,
        _ => bail!("`{name}` must be a string, a number, a boolean or a list of them"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(file: &str, argv: &[&str], in_env: &[&str]) -> Result<Vec<String>> {
        let path = std::env::temp_dir().join(format!("tokenmill-config-{}-{}.toml", std::process::id(), file.len()));
        std::fs::write(&path, file)?;
        let mut argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        argv.push(format!("--config={}", path.display()).into());
        let args = expand(argv, |name| in_env.contains(&name));
        std::fs::remove_file(&path)?;
        Ok(args?
            .into_iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .filter(|arg| !arg.starts_with("--config"))
            .collect())
    }

    #[test]
    fn options_come_before_the_command_line_and_after_the_environment() {
        let file = "port = 9000\nhost = \"::1\"\nstrict-params = true\nno_enable_prefix_caching = false\napi-key = [\"a\", \"b\"]";
        let args = expanded(file, &["tokenmill", "serve", "--port", "1"], &["TOKENMILL_HOST"]).unwrap();
        assert_eq!(
            args,
            ["tokenmill", "serve", "--api-key=a", "--api-key=b", "--port=9000", "--strict-params", "--port", "1"]
        );
    }

    #[test]
    fn options_come_after_both_words_of_a_command_of_two() {
        let args = expanded("port=1", &["tokenmill", "bench", "serve", "--seed=2"], &[]).unwrap();
        assert_eq!(args, ["tokenmill", "bench", "serve", "--port=1", "--seed=2"]);
    }

    #[test]
    fn a_bad_file_is_named() {
        assert!(
            format!("{:#}", expanded("port = ", &["tokenmill", "serve"], &[]).unwrap_err()).contains("not valid TOML")
        );
        assert!(
            format!("{:#}", expanded("[port]", &["tokenmill", "serve"], &[]).unwrap_err()).contains("`port` must be")
        );
    }
}
