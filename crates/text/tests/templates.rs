//! What chat templates may use, and what stops those that misbehave.

#![allow(clippy::unwrap_used)]

use serde_json::{Map, Value, json};
use text::{ChatInput, ChatTemplate, TextError};

struct Case {
    messages: Value,
    tools: Value,
    kwargs: Value,
    generate: bool,
    continue_last: bool,
}

impl Default for Case {
    fn default() -> Self {
        let messages = json!([{"role": "user", "content": "hi"}]);
        Self { messages, tools: json!([]), kwargs: json!({}), generate: false, continue_last: false }
    }
}

fn render(source: &str, case: Case) -> Result<String, TextError> {
    let kwargs: Map<String, Value> = case.kwargs.as_object().unwrap().clone();
    let input = ChatInput {
        messages: case.messages.as_array().unwrap(),
        tools: case.tools.as_array().unwrap(),
        add_generation_prompt: case.generate,
        continue_final_message: case.continue_last,
        kwargs: &kwargs,
    };
    ChatTemplate::new(source, "<s>", "</s>")?.render(&input).map(|rendered| rendered.text().into_owned())
}

#[test]
fn the_dialect_is_that_of_the_reference_renderer() {
    for (source, expected) in [
        // Whitespace as trim_blocks and lstrip_blocks leave it.
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>hi</s>"),
        (
            "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{%- generation -%} x {%- endgeneration -%}!", "x!"),
        ("{% set ns = namespace(a=1) %}{% for m in messages %}{% set ns.a = ns.a + 1 %}{% endfor %}{{ ns.a }}", "2"),
        ("{{ ' x '.strip() }}{{ 'ab'.upper() }}{{ 'a,b'.split(',')[-1] }}{{ 'abc'.startswith('ab') }}", "xABbTrue"),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=hi;"),
        (
            "{{ messages[0].get('name', 'none') }}{{ 'name' in messages[0] }}{{ messages[0].name is defined }}",
            "noneFalseFalse",
        ),
        (
            "{{ none }} {{ true }} {{ 1.0 }} {{ [1, 'a'] }} {{ missing }}|{{ 1.5 | string }}",
            "None True 1.0 [1, 'a'] |1.5",
        ),
        ("{{ tools is none }}{{ documents is none }}", "TrueTrue"),
        (
            "{{ {'b': '<é&\\'\"\n', 'a': [1, 2.0, none, true, {}]} | tojson }}",
            "{\"b\": \"<é&'\\\"\\n\", \"a\": [1, 2.0, null, true, {}]}",
        ),
        (
            "{{ {'a': [1, {'b': []}]} | tojson(indent=2) }}",
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ]\n}",
        ),
        (
            "{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}",
            "{\"a\":1,\"b\":\"\\u00e9\"}",
        ),
        ("{{ messages[1:] | length }}{{ messages | map(attribute='role') | join(',') }}", "0user"),
        (
            "{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}{{ '%Y' | length }}{{ strftime_now('%Y') | length }}",
            "[1]24",
        ),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages[-1].role }}", "1user"),
    ] {
        assert_eq!(render(source, Case::default()).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn tools_keep_the_order_of_their_keys() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}]);
    let expected = r#"{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}"#;
    assert_eq!(render("{{ tools[0] | tojson }}", Case { tools, ..Case::default() }).as_deref(), Ok(expected));
    let messages = json!([{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{\"y\": 1, \"b\": 2}"}}]}]);
    let source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{% for k, v in c.function.arguments.items() %}{{ k }}{{ v }}{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(render(source, Case { messages, ..Case::default() }).as_deref(), Ok("y1b2"));
}

#[test]
fn variables_of_the_request_reach_the_template_but_do_not_replace_its_own() {
    let kwargs = json!({"enable_thinking": false, "bos_token": "evil", "messages": []});
    let source =
        "{{ enable_thinking }}{{ bos_token }}{{ messages | length }}{% if add_generation_prompt %}>{% endif %}";
    assert_eq!(render(source, Case { kwargs, generate: true, ..Case::default() }).as_deref(), Ok("False<s>1>"));
}

#[test]
fn content_in_parts_fits_every_template() {
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    let text = json!([{"role": "user", "content": "ab"}]);
    let looping = "{% for p in messages[0].content %}{{ p.text }}|{% endfor %}";
    let either = "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{% for p in messages[0].content %}{{ p['text'] }}+{% endfor %}{% endif %}";
    for (source, messages, expected) in [
        ("{{ 'x' + messages[0].content }}", &parts, "xa\nb"),
        ("{{ messages[0].content }}", &parts, "a\nb"),
        (looping, &parts, "a|b|"),
        (looping, &text, "ab|"),
        (either, &parts, "a+b+"),
        (either, &text, "ab"),
    ] {
        assert_eq!(
            render(source, Case { messages: messages.clone(), ..Case::default() }).as_deref(),
            Ok(expected),
            "{source}"
        );
    }
}

#[test]
fn the_last_message_can_be_continued() {
    let chatml = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let trimming = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}";
    let talk = |last: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": last}]);
    for (source, last, expected) in [
        (chatml, "Sure, ", "<user>q</>\n<assistant>Sure, "),
        (chatml, "", "<user>q</>\n<assistant>"),
        (trimming, "Sure, ", "[q][Sure,"),
        (trimming, "q", "[q][q"),
    ] {
        let case = Case { messages: talk(last), continue_last: true, ..Case::default() };
        assert_eq!(render(source, case).as_deref(), Ok(expected), "{source} {last}");
    }
    for (source, generate) in [(chatml, true), ("nothing", false)] {
        let case = Case { messages: talk("a"), continue_last: true, generate, ..Case::default() };
        assert!(matches!(render(source, case), Err(TextError::Continue(_))), "{source}");
    }
    assert!(matches!(
        render(chatml, Case { messages: json!([]), continue_last: true, ..Case::default() }),
        Err(TextError::Continue(_))
    ));
}

#[test]
fn templates_that_misbehave_end_with_an_error() {
    let raised = render("{{ raise_exception('roles must alternate') }}", Case::default());
    assert_eq!(raised, Err(TextError::TemplateRaised("roles must alternate".to_owned())));
    let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless, Case::default()), Err(TextError::TemplateFuel { .. })));
    let verbose = "{% set x = messages[0].content * 100000 %}{% for a in range(10000) %}{{ x }}{% endfor %}";
    let error = render(verbose, Case::default()).unwrap_err();
    assert!(matches!(error, TextError::TemplateOutput { .. }), "{error}");
    let recursive = "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}";
    assert!(matches!(render(recursive, Case::default()), Err(TextError::Template(_))));
    assert!(matches!(render("{% if %}", Case::default()), Err(TextError::TemplateSyntax(_))));
    assert!(matches!(render("{{ missing.attribute }}", Case::default()), Err(TextError::Template(_))));
}
