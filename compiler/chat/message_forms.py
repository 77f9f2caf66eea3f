"""Convert the messages of other tools into OpenAI's form: role, content, tool_calls.

It knows Gemini's `parts`, Anthropic's blocks, the parts of LLaMA-Factory's v1 files, images of OpenAI's
requests, dialogues in one text and conversations as JSON text. A part of another type stays, and reading its
message refuses it. Unused keys of a part move to its message, which counts them or checks them as marks.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any

from tuneyard.compiler.rows import Fields, are_objects, without
from tuneyard.core.datasets.answer_flags import as_number, masks
from tuneyard.core.datasets.column_meanings import snake_case
from tuneyard.core.files import JsonObject, are_texts
from tuneyard.core.records.calls import read_strict

USER, ASSISTANT, SYSTEM, CALL, OBSERVATION = "user", "assistant", "system", "call", "observation"
ROLES = {
    "human": USER,
    "user": USER,
    "prompter": USER,  # OASST
    "gpt": ASSISTANT,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "chatbot": ASSISTANT,
    "bard": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
    "function_call": CALL,
    "tool_call": CALL,
    "observation": OBSERVATION,
    "tool": OBSERVATION,
    "function": OBSERVATION,
}
"""Who speaks, by the name of a role in lower case."""
IMAGES = "paths of images in the content"
"""The key of a message under which its images are passed on."""
IMAGE_PLACEHOLDER = "<image>"
MESSAGE_KEYS = (
    ("from", "value"),
    ("role", "content"),
    ("sender", "text"),  # Claude's export
    ("speaker", "text"),
    ("from", "message"),
    ("speaker", "utterance"),
    ("role", "msg"),
    ("speaker", "msg"),
    ("sender", "msg"),
    ("from", "msg"),
)
"""The keys of a message's speaker and of its text."""
EXCHANGES = (
    ("input", "output"),
    ("human", "assistant"),
    ("user", "assistant"),
    ("question", "answer"),
    ("prompt", "response"),
    ("user", "bot"),
)
"""The keys of a question and its answer in one object of a conversation (Capybara, MOSS)."""
QUESTIONS = ("问", "问题", "提问", "q", "question", "f", "frage", "pregunta", "instruction")
"""Speakers of questions that stand alone, in small letters."""
SPEAKERS = {
    **dict.fromkeys(
        (
            *QUESTIONS, "user", "human", "customer", "client", "caller", "visitor", "patient", "student",
            "inbound", "you", "you said", "inst", "usr",
            "用户", "客户", "顾客", "访客", "患者", "学生", "买家",
            "ユーザー", "質問", "顧客", "사용자", "질문", "고객",
            "kunde", "nutzer", "cliente", "usuario", "utilisateur",
        ),
        "user",
    ),
    **dict.fromkeys(
        (
            "答", "回答", "答案", "a", "answer", "antwort", "respuesta", "réponse", "response",
            "assistant", "ai", "bot", "gpt", "agent", "support",
            "operator", "advisor", "representative", "/inst", "doctor", "teacher", "chatbot", "outbound",
            "chatgpt", "chatgpt said",
            "助手", "客服", "坐席", "医生", "老师", "卖家", "机器人",
            "アシスタント", "オペレーター", "어시스턴트", "답변", "상담원",
            "berater", "mitarbeiter", "assistent", "agente", "asistente", "conseiller",
        ),
        "assistant",
    ),
    **dict.fromkeys(("system", "sys", "système", "systeme", "sistema", "系统"), "system"),
}  # fmt: skip
"""Roles by the names of speakers: messages in a text begin with them, a table has them in a column."""
_LONGEST_FIRST = "|".join(sorted(SPEAKERS, key=len, reverse=True))
SPEAKER = re.compile(
    r"(?=[^\n:：】]*[:：】]|[ \t]*[qa问答]\d+[.)、]"
    r"|[ \t]*#+ *(?:user|assistant|human|(?:you|chatgpt)(?: said)?|用户|助手) *(?:\n|$))"
    rf"[ \t#*【]*(?:\d+[.)、][ \t*]*)?({_LONGEST_FIRST})[ \t]*+#?\d*+[ \t*]*+"
    r"(?:(?:】?[:：]|】|(?<=\d)[.)、])[ \t*]*|(?=\n|$))",
    re.I,
)
"""The beginning of a message: bold, numbered, in brackets or a heading: `**User:**`, `1. 问题：`,
`Q1.`, `【问】`, `### User`.

Without a colon a heading has one of a few names: `## Answer` is one inside an answer.
"""
_TRANSCRIPT = re.compile(
    r"\s*(?:Human:.*\n\nAssistant:"
    r"|(?:Below is [^#]*)?### (?:Human|User|Instruction):.*### (?:Assistant|Response):)",
    re.DOTALL,
)
_TOKENS = re.compile(
    r"(?:(?<!\s)\s+)?(?:<s>|<\|begin_of_text\|>)?"
    r"(?:<\|im_start\|>(?=\w+[ \t]*(?:\r?\n|\Z))"
    r"|<\|(?=(?:system|user|assistant)\|>[ \t]*(?:\r?\n|\Z))"
    r"|<\|start_header_id\|>(?=\w+<\|end_header_id\|>)"
    r"|\[(?=/?INST\]))(/?\w+)"
    r"(?:\|>|<\|end_header_id\|>|\])?\s*"
)
"""The beginning of a message in the chat templates of ChatML, Zephyr, Llama 3 and 2.

The role of the first two ends with a line feed. `<|im_start|>assistant is the marker of ChatML.` is a text.
The lookbehind, here and below, reads long white space once.
"""
_ENDS = re.compile(r"(?:(?<!\s)\s+)?(?:</s>|<\|(?:im_end|eot_id|end)\|>)\s*")
_SPEAKERS = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_HEADED = re.compile(r"(?:(?<!\s)\s+)?### (Human|User|Instruction|Assistant|Response):[ \n]?")
_LINES = re.compile(rf"(?:^|\n\n?){SPEAKER.pattern}\s*", re.I)
_TEXTS = ("text", "input_text", "output_text")
_THOUGHTS = {"thinking": "thinking", "reasoning": "value"}
"""The key of the text in a part of reasoning, by the type of the part."""
_THOUGHT_FLAGS = ("thought", "is_thought")
"""Keys by which Google's tools mark a part or a message that is no answer, in snake case."""
REASONING = "reasoning_content"


def role_and_content(message: Fields) -> tuple[str, str]:
    """The keys of a message's speaker and of its text."""
    for role, content in MESSAGE_KEYS:
        if role in message and content in message:
            return role, content
    return MESSAGE_KEYS[0] if "from" in message else MESSAGE_KEYS[1]


def speaker(message: Fields) -> str | None:
    """Who speaks in a message, None for a role without a meaning."""
    return ROLES.get(str(message.get(role_and_content(message)[0])).lower())


def is_flagged_thought(fields: Fields) -> bool:
    """True for a part or a message that is marked as a thought before the answer: `thought`, `isThought`."""
    return any(as_number(fields[key]) == 1 for key in thought_flags(fields))


def thought_flags(fields: Fields) -> list[str]:
    """The keys of a part or a message that mark it as a thought, or as none. A text under them is no mark."""
    names = [key for key in fields if snake_case(key) in _THOUGHT_FLAGS]
    return [name for name in names if as_number(fields[name]) in (0, 1)]


def common_messages(value: object, roles: Mapping[str, str], *, whole: bool = True) -> object:
    """Convert a conversation into OpenAI's form. Any other value stays, and its check refuses it.

    `roles` maps further names of roles to those of `ROLES`. `whole`: a text that is a JSON list of messages
    is a conversation, too. Otherwise each message needs a known role, since an answer may be JSON itself.
    """
    if isinstance(value, str):
        value = _from_text(value, whole=whole)
    messages = [value] if isinstance(value, dict) else value
    if not isinstance(messages, list):
        return value
    if whole and are_texts(messages) and len(messages) > 1:  # LIMA: the speakers take turns
        messages = [
            {"role": ASSISTANT if at % 2 else USER, "content": text} for at, text in enumerate(messages)
        ]
    changed = [each for message in messages for each in _common(message, roles)]
    if isinstance(value, dict) and len(changed) == 1:
        return changed[0]
    return _with_thoughts(changed)


def _with_thoughts(messages: list[Any]) -> list[Any]:
    """Put a message that is marked as a thought before the text of the answer after it, as its reasoning.

    A thought without an answer stays as a message without a text, and reading it refuses it.
    """
    whole: list[Any] = []
    for message in messages:
        before = whole[-1] if whole else None
        if isinstance(message, dict) and _is_thought(message):
            _unused, content = role_and_content(message)
            message = {
                **message,
                content: None,
                REASONING: _joined_thoughts(message.get(REASONING), message[content]),
            }
        is_answer = isinstance(message, dict) and speaker(message) == ASSISTANT
        if is_answer and isinstance(before, dict) and _is_open(before):
            message = {**message, REASONING: _joined_thoughts(before[REASONING], message.get(REASONING))}
            whole.pop()
        whole.append(message)
    return whole


def _joined_thoughts(*thoughts: object) -> str:
    """Texts of reasoning as one."""
    return "\n".join(thought for thought in thoughts if isinstance(thought, str) and thought)


def _is_thought(message: Fields) -> bool:
    """True for a message of the assistant that is a thought, with its text."""
    text = message.get(role_and_content(message)[1])
    return speaker(message) == ASSISTANT and is_flagged_thought(message) and isinstance(text, str)


def _is_open(message: Fields) -> bool:
    """True for a message of thoughts alone, which waits for its answer."""
    if message.get(role_and_content(message)[1], "") not in (None, "") or message.get("tool_calls"):
        return False
    thoughts = message.get(REASONING)
    return speaker(message) == ASSISTANT and isinstance(thoughts, str) and thoughts != ""


def is_transcript(value: object) -> bool:
    """True if a value is a dialogue in one text: `Human: …`, a blank line, `Assistant: …`, as HH-RLHF's,
    `### Human: …### Assistant: …`, as Guanaco's, `### Instruction: …### Response: …`, as Alpaca's prompt, or
    with the tokens of a chat template.
    """
    return isinstance(value, str) and bool(_TRANSCRIPT.match(value) or _TOKENS.match(value))


def _from_text(text: str, *, whole: bool) -> object:
    """The messages in a text, or the text itself, as of examples in a prompt (`Q: … A: … Q: … A:`)."""
    spoken = text.lstrip()
    if is_transcript(text):
        speakers = _SPEAKERS if spoken.startswith("Human:") else _HEADED
        if _TOKENS.match(spoken):
            spoken = spoken.replace("[INST] <<SYS>>", "<|system|>\n").replace("<</SYS>>", "<|user|>\n")
            speakers, spoken = _TOKENS, _ENDS.sub("", spoken)
        messages = _spoken(speakers, spoken)
        # The answers to Nectar's prompts are in another column.
        return messages[:-1] if whole and not messages[-1]["content"].strip() else messages
    if whole and (first := SPEAKER.match(spoken)):
        messages = _spoken(_LINES, spoken)
        is_open = not messages[-1]["content"].strip()  # BELLE: its answer is in another column
        is_prompt = is_open and first[1].lower() in QUESTIONS
        if {USER, ASSISTANT} <= {message["role"] for message in messages} and not is_prompt:
            return messages[:-1] if is_open else messages
    if not spoken.startswith("["):
        return text
    try:
        messages = read_strict(text)
    except ValueError:
        return text
    if not are_objects(messages):
        return text
    return messages if whole or all(map(speaker, messages)) else text


def _spoken(speakers: re.Pattern[str], text: str) -> list[dict[str, str]]:
    """The messages of a text. What comes before the first speaker is a system text."""
    before, *pieces = speakers.split(text)
    messages = list(zip(pieces[::2], pieces[1::2], strict=True))
    if before:
        messages.insert(0, (SYSTEM, before))
    return [{"role": SPEAKERS.get(name.lower(), name), "content": words} for name, words in messages]


def exchange_keys(item: Fields) -> tuple[str, str] | None:
    """The keys of the question and of the answer in an object that has both as texts, None for any other."""
    for question, answer in EXCHANGES:
        if isinstance(item.get(question), str) and isinstance(item.get(answer), str):
            return question, answer
    return None


def _common(message: Any, roles: Mapping[str, str]) -> list[Any]:
    """One message in OpenAI's form, after the results of tools that it begins with."""
    if not isinstance(message, dict):
        return [message]
    name, content = role_and_content(message)
    exchange = exchange_keys(message) if name not in message else None
    if exchange:
        question, answer = exchange
        rest = without(message, *exchange, SYSTEM)
        reply = {"role": ASSISTANT, "content": message[answer], **rest}
        system = [{"role": SYSTEM, "content": message[SYSTEM]}] if message.get(SYSTEM) else []  # XTuner
        return [*system, {"role": USER, "content": message[question]}, reply]
    if isinstance(message.get(name), str) and message[name] in roles:
        message = {**message, name: roles[message[name]]}
    call = message.get("function_call")
    if isinstance(call, dict) and not message.get(content):  # OpenAI's form before tools
        message = without(message, "function_call")
        message["tool_calls"] = [{"function": call}]
    is_gemini = "parts" in message and content not in message
    content_key = "parts" if is_gemini else content
    parts = message.get(content_key)
    if not are_objects(parts):
        return [message]
    if is_gemini:
        parts = list(map(_gemini_part, parts))
    rest = without(message, content_key)
    form = _Parts()
    if not all(map(form.add, parts)):
        return [{**rest, content: parts}]
    return form.messages(rest, name, content)


class _Parts:
    """Contents of the parts of one message."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[Any] = []
        self.results: list[Fields] = []
        self.images: list[str] = []
        self.other_keys: Fields = {}

    def add(self, part: JsonObject) -> bool:
        """Take in a part; False if it is not known."""
        kind = str(part.get("type", "text"))  # Bedrock's parts have none
        text_key = _THOUGHTS.get(kind, "value" if "value" in part else "text")
        text = part.get(text_key)
        used = {text_key}
        if kind in _TEXTS and isinstance(text, str) and is_flagged_thought(part):
            self.thoughts.append(text)
            used.update(thought_flags(part))
        elif kind in _TEXTS and isinstance(text, str):
            self.texts.append(text)
        elif kind in _THOUGHTS and isinstance(text, str):
            self.thoughts.append(text)
        elif kind == "tool_call" and "value" in part:
            self.calls += _calls(part["value"])
        elif kind == "tool_use" and "name" in part:
            call = {"name": part["name"], "arguments": part.get("input") or {}}
            self.calls.append({"id": part.get("id"), "function": call})
            used = {"id", "name", "input"}
        elif kind == "tool_result":
            result = _result(part.get("content"))
            if result is None:
                return False
            others = without(part, "type", "content", "tool_use_id")
            message = {"role": "tool", "content": result, "tool_call_id": part.get("tool_use_id")}
            self.results.append(message | others)
            return True
        elif kind in ("image_url", "image", "input_image"):
            path, used = _image(part)
            if not path:
                return False
            self.images.append(path)
            self.texts.append(IMAGE_PLACEHOLDER)
        else:
            return False
        for key in part.keys() - used - {"type"}:
            if key not in self.other_keys or masks(key, part[key]):
                self.other_keys[key] = part[key]
        return True

    def messages(self, rest: Fields, name: str, content: str) -> list[Fields]:
        """The results of tools, and the message unless it has nothing else. `rest`: its other keys."""
        if self.results and not (self.texts or self.thoughts or self.calls):
            first, *others = self.results
            other_keys = without(rest, name)
            return [{**other_keys, **first, **self.other_keys}, *others]
        message = {**self.other_keys, **rest, content: "".join(self.texts)}
        message |= {key: value for key, value in self.other_keys.items() if masks(key, value)}
        if self.thoughts:
            key = "thinking" if REASONING in rest else REASONING
            message[key] = "\n".join(self.thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
            before = rest.get("tool_calls")
            if isinstance(before, list):
                message["tool_calls"] = [*before, *self.calls]
        if self.images:
            message[IMAGES] = self.images
        return [*self.results, message]


def _calls(value: object) -> list[Any]:
    """The calls in a part of a v1 file, which has them as JSON text. A wrong call is refused later."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = read_strict(value)
    return value if isinstance(value, list) else [value]


def _result(content: object) -> str | None:
    """The text of a tool's result in Anthropic's form; None if it contains more than text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)


def _image(part: JsonObject) -> tuple[str, set[str]]:
    """The path of an image in a part ("" if there is none), and the keys that it takes."""
    for key in ("image_url", "image", "path", "url", "value"):
        image = part.get(key)
        if isinstance(image, dict) and image.keys() <= {"url", "detail"}:
            image = image.get("url")
        if isinstance(image, str) and image:
            return image.removeprefix("file://"), {key}
    return "", set()


def _gemini_part(part: Fields) -> Fields:
    """A part of Gemini's as one of Anthropic's; any other stays."""
    if "type" in part:
        return part
    if isinstance(part.get("text"), str):
        return {"type": "text", **part}
    call = part.get("functionCall") or part.get("function_call")
    if isinstance(call, dict):
        use = {"id": call.get("id"), "name": call.get("name"), "input": call.get("args")}
        return {"type": "tool_use", **use, **without(part, "functionCall", "function_call")}
    answer = part.get("functionResponse") or part.get("function_response")
    if isinstance(answer, dict):
        text = json.dumps(answer.get("response"), ensure_ascii=False)
        rest = without(part, "functionResponse", "function_response")
        return {"type": "tool_result", "tool_use_id": answer.get("id"), "content": text, **rest}
    return part
