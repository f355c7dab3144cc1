//! Chat templates: rendering as the tokenizer libraries do it, and the token that a rendered turn ends with.
//!
//! A template comes with a checkpoint or a bundle, so it may be hostile. [`Conversation::render`] limits the size of a
//! template and the steps it takes, but a few lines of Jinja can still ask the engine for more stack, memory or time than
//! there is. Programs therefore pass a [`Renderer`] that renders in a separate process.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Largest template, in bytes: ten times the largest one that is known.
pub const MAX_TEMPLATE: usize = 256 << 10;

/// Largest rendered text, in bytes.
pub const MAX_RENDERED: usize = 16 << 20;

/// Steps a template may take: thousands of times what a long conversation needs, but enough to stop hostile loops.
const FUEL: u64 = 10_000_000;

/// Most characters of an engine's message that an error repeats: it quotes whole lines of the template.
const MAX_MESSAGE: usize = 1000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// The text.
    pub content: &'a str,
}

/// A token that `tokenizer.json` adds to the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Its id.
    pub id: u64,
}

/// Why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template cannot be parsed or fails while rendering.
    #[error("the chat template cannot be rendered: {0}")]
    Render(String),
    /// The template asks for more than any template needs.
    #[error("the chat template exceeds the limit of {0}")]
    Exceeds(String),
    /// The process that renders templates cannot be run.
    #[error("cannot run the process that renders chat templates: {0}")]
    Process(#[from] std::io::Error),
    /// The rendered conversation lacks the assistant's message.
    #[error("the chat template leaves out the assistant's message")]
    NoReply,
    /// What follows the assistant's message does not begin with an added token.
    #[error(
        "the chat template ends a turn with '{0}', which begins with no token of tokenizer.json's added_tokens"
    )]
    NoEndToken(String),
}

impl From<Error> for TemplateError {
    fn from(error: Error) -> Self {
        let mut message = format!("{error:#}");
        if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(cut);
            message.push_str("...");
        }
        Self::Render(message)
    }
}

/// Renders conversations. `&Conversation::render` does it in this process, which is for templates that are trusted.
pub type Renderer<'a> = &'a dyn Fn(&Conversation) -> Result<String, TemplateError>;

/// A template with everything it is given, ready to be rendered here or in another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    template: String,
    context: Value,
}

impl Conversation {
    /// A conversation for `template`.
    pub fn new(
        template: &str,
        messages: &[Message<'_>],
        bos_token: &str,
        add_generation_prompt: bool,
    ) -> Self {
        let context = json!({
            "messages": messages,
            "bos_token": bos_token,
            "add_generation_prompt": add_generation_prompt,
        });
        Self { template: template.to_owned(), context }
    }

    /// The same with another variable for the template, or another value of one: messages with more than a text, tools.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.context[name] = value;
        self
    }

    /// Refuses a template that is too large to be one.
    ///
    /// # Errors
    /// [`TemplateError::Exceeds`] says how large it is.
    pub fn check_size(&self) -> Result<(), TemplateError> {
        if self.template.len() <= MAX_TEMPLATE {
            return Ok(());
        }
        let found = self.template.len();
        Err(TemplateError::Exceeds(format!("{MAX_TEMPLATE} bytes for its text: it has {found}")))
    }

    /// Renders the conversation the way Python's `apply_chat_template` does: blocks trimmed, Python's string and
    /// dictionary methods available, `raise_exception` as an error.
    ///
    /// A hostile template can exhaust the stack or the memory of the process that calls this.
    ///
    /// ```
    /// use packer::template::{Conversation, Message};
    /// let template = "{{ bos_token }}{% for m in messages %}{{ m['content'].strip() }}{% endfor %}";
    /// let messages = [Message { role: "user", content: " Hi " }];
    /// assert_eq!(Conversation::new(template, &messages, "<bos>", false).render().unwrap(), "<bos>Hi");
    /// ```
    ///
    /// # Errors
    /// When the template is malformed, fails on purpose, is too large, or does not terminate.
    pub fn render(&self) -> Result<String, TemplateError> {
        self.check_size()?;
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // Templates put today's date into system prompts; the epoch keeps the result reproducible.
        environment.add_function("strftime_now", |_format: String| "1970-01-01");
        let rendered = environment.template_from_str(&self.template)?.render(Serde(&self.context))?;
        if rendered.len() > MAX_RENDERED {
            return Err(TemplateError::Exceeds(format!("{MAX_RENDERED} bytes for what it renders")));
        }
        Ok(rendered)
    }
}

/// The token that ends an assistant's turn: the longest added token that follows the message in a rendered
/// conversation.
///
/// # Errors
/// When the template cannot be rendered or ends a turn with something other than an added token.
pub fn end_of_turn(
    template: &str,
    added_tokens: &[AddedToken],
    bos_token: &str,
    render: Renderer<'_>,
) -> Result<AddedToken, TemplateError> {
    const QUESTION: &str = "What does a turn end with?";
    const REPLY: &str = "It ends here, with the following token:";
    let messages =
        [Message { role: "user", content: QUESTION }, Message { role: "assistant", content: REPLY }];
    let rendered = render(&Conversation::new(template, &messages, bos_token, false))?;
    let (_, end) = rendered.rsplit_once(REPLY).ok_or(TemplateError::NoReply)?;
    let end = end.trim_start();
    added_tokens
        .iter()
        .filter(|token| !token.content.is_empty() && end.starts_with(&token.content))
        .max_by_key(|token| token.content.len())
        .cloned()
        .ok_or_else(|| TemplateError::NoEndToken(end.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: &str = "{{ bos_token }}{% for m in messages %}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n\
        {% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}";

    /// The constructs that the templates of the released checkpoints use: macros, namespaces, Python methods,
    /// slices, reversed ranges, conditional expressions.
    const ELABORATE: &str = r"
{%- macro clean(text) -%}
    {%- set ns = namespace(result='') -%}
    {%- for part in text.split('<channel|>') -%}
        {%- if '<|channel>' in part -%}
            {%- set ns.result = ns.result + part.split('<|channel>')[0] -%}
        {%- else -%}
            {%- set ns.result = ns.result + part -%}
        {%- endif -%}
    {%- endfor -%}
    {{- ns.result | trim -}}
{%- endmacro -%}
{%- set ns = namespace(previous=None) -%}
{%- set loop_messages = messages -%}
{{- bos_token -}}
{%- if (enable_thinking is defined and enable_thinking) or tools or messages[0]['role'] in ['system', 'developer'] -%}
    {{- '<|turn>system\n' + messages[0]['content'] | trim + '<turn|>\n' -}}
    {%- set loop_messages = messages[1:] -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {%- set seen = namespace(found=false) -%}
    {%- for j in range(loop.index0 - 1, -1, -1) -%}
        {%- if not seen.found and loop_messages[j]['role'] != 'tool' -%}{%- set seen.found = true -%}{%- endif -%}
    {%- endfor -%}
    {{- '<|turn>' + role + '\n' }}
    {%- if message.get('reasoning') or message.get('reasoning_content') -%}{{- 'thought' -}}{%- endif -%}
    {%- if message['content'] is string -%}
        {%- if role == 'model' -%}{{- clean(message['content']) -}}
        {%- else -%}{{- message['content'] | trim -}}{%- endif -%}
    {%- endif -%}
    {{- '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}";

    fn tokens() -> Vec<AddedToken> {
        [("<eos>", 1), ("<bos>", 2), ("<|turn>", 4), ("<turn|>", 5), ("<", 9)]
            .map(|(content, id)| AddedToken { content: content.into(), id })
            .to_vec()
    }

    fn render(
        template: &str,
        messages: &[Message<'_>],
        bos_token: &str,
        prompt: bool,
    ) -> Result<String, TemplateError> {
        Conversation::new(template, messages, bos_token, prompt).render()
    }

    fn end(template: &str, bos_token: &str) -> Result<AddedToken, TemplateError> {
        end_of_turn(template, &tokens(), bos_token, &Conversation::render)
    }

    #[test]
    fn conversation_is_rendered_as_in_python() {
        let messages = [
            Message { role: "user", content: "Hi" },
            Message { role: "assistant", content: "a<|channel>b<channel|>c " },
        ];
        assert_eq!(
            render(TURNS, &messages[..1], "<bos>", true).unwrap(),
            "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"
        );
        assert_eq!(
            render(ELABORATE, &messages, "<bos>", true).unwrap(),
            "<bos><|turn>user\nHi<turn|>\n<|turn>model\nac<turn|>\n<|turn>model\n"
        );
    }

    #[test]
    fn turn_end_is_the_longest_token_after_the_reply() {
        for template in [TURNS, ELABORATE] {
            assert_eq!(end(template, "<bos>").unwrap().id, 5);
        }
        let eos = "{% for m in messages %}{{ m.content }} <eos>{% endfor %}";
        assert_eq!(end(eos, "").unwrap().id, 1);
    }

    #[test]
    fn useless_templates_have_distinct_errors() {
        let error = |template: &str| end(template, "").unwrap_err();
        assert!(matches!(error("{% for"), TemplateError::Render(_)));
        assert!(matches!(error("{{ raise_exception('no') }}"), TemplateError::Render(_)));
        assert!(matches!(error("{{ messages[0].content }}"), TemplateError::NoReply));
        assert!(matches!(error("{{ messages[1].content }}end"), TemplateError::NoEndToken(_)));
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(matches!(error(endless), TemplateError::Render(_)));
    }

    /// What templates of released models use beyond the above.
    #[test]
    fn features_of_released_templates() {
        let messages =
            [Message { role: "user", content: " Hi\n" }, Message { role: "assistant", content: "Yo" }];
        for (template, expected) in [
            ("{{ messages|length }}{{ messages[-1].role }}{{ messages[0]['content']|trim }}", "2assistantHi"),
            (
                "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{% endfor %}",
                "0TrueFalse1FalseTrue",
            ),
            (
                "{%- for m in messages[::-1] -%}{{ m.role[:1] }}{% if loop.last %}{% break %}{% endif %}{%- endfor %}",
                "au",
            ),
            (
                "{% set ns = namespace(n=0, s='') %}{% for i in range(1, 4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
                "6",
            ),
            ("{% macro m(a, b='x') %}{{ a ~ b }}{% endmacro %}{{ m('1') }}{{ m(a='2', b='3') }}", "1x23"),
            ("{% call(x) w() %}{{ x }}{% endcall %}", "unknown"),
            ("{{ strftime_now('%d %b %Y') }}", "1970-01-01"),
            (
                "{{ {'b': 1, 'a': [true, none, 'ü<']}|tojson }}",
                "{\"a\": [true, null, \"ü\\u003c\"], \"b\": 1}",
            ),
            ("{{ [1, {'a': 2}]|tojson(indent=2) }}", "[\n  1,\n  {\n    \"a\": 2\n  }\n]"),
            (
                "{{ 'a,b'.split(',')|join('-') }}{{ 'Ab'.upper().lower().replace('a', 'c').strip('b') }}",
                "a-bc",
            ),
            (
                "{{ messages[0].get('name', 'none') }}{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}",
                "nonecontent=Yo;role=assistant;",
            ),
            ("{{ (messages|selectattr('role', 'equalto', 'user')|list)[0].content|trim }}", "Hi"),
            ("{{ messages|map(attribute='role')|list }}", "['user', 'assistant']"),
            ("{{ 'x' if tools is defined and tools else 'y' }}{{ missing }}{{ missing is none }}", "yFalse"),
            ("{{ 'abc'.startswith(('x', 'a')) and 'abc'.endswith('c') and 'b' in 'abc' }}", "True"),
            ("{# note #}{% generation %}", "unknown"),
            (
                "{%- if messages[0].role not in ['user', 'system'] -%}{{ raise_exception('no') }}{%- endif -%}ok",
                "ok",
            ),
            (
                "{{ messages[0] is mapping }}{{ messages is iterable }}{{ 'a' is string }}{{ 1 is number }}",
                "TrueTrueTrueTrue",
            ),
            (
                "{% filter upper %}a{% endfilter %}{% set x %}b{% endset %}{{ x }}{{ '%s-%02d'|format('c', 7) }}",
                "Abc-07",
            ),
            ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ] {
            match render(template, &messages, "", false) {
                Ok(rendered) => assert_eq!(rendered, expected, "{template}"),
                Err(error) => assert!(
                    expected == "unknown" && error.to_string().contains("unknown"),
                    "{template}: {error}"
                ),
            }
        }
    }

    #[test]
    fn size_of_templates_and_of_messages_is_limited() {
        let error = end(&"x".repeat(MAX_TEMPLATE + 1), "").unwrap_err();
        assert!(
            error.to_string().contains("exceeds the limit of 262144 bytes for its text: it has 262145"),
            "{error}"
        );
        let long = format!("{{{{ {} }}}}", "a.b.".repeat(10_000));
        let error = end(&long, "").unwrap_err().to_string();
        assert!(error.len() < 2 * MAX_MESSAGE && error.ends_with("..."), "{error}");
        let error = render("{{ 'x' * 20000000 }}", &[], "", false).unwrap_err();
        assert!(matches!(error, TemplateError::Exceeds(_)), "{error}");
    }
}
