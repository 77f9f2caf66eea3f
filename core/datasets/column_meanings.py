"""The vocabulary of source columns: the names that datasets use, and the meaning of each name.

`data init` finds its roles here. The report on unused columns reads here which of them change an answer. A
test checks that the bundled specs use no name that is missing here.
"""

import re
from collections.abc import Mapping
from functools import cache, lru_cache

from tuneyard.core.language.message import _

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SIGNS = re.compile(r"[\W_]+")
# By role, in snake case and by preference: if a file has several, the first one is used.
_USUAL_NAMES = {
    "question": "instruction prompt question query problem task ask q question_title query_text inputs "
    "question_stem question.stem question.full_text user_input user_prompt user_message customer_message "
    "inquiry request faq nl question_text source_text "
    "指令 提示 问题 提问 题目 题干 标准问题 用户问题 客户问题 用户输入 提示词 问 "
    "frage pregunta pergunta вопрос 質問 질문",
    "context": "input context contexts instances.input passage event paragraph context_text question_content "
    "support schema question_text question_body 输入 上下文 背景 补充信息",
    "answer": "output response answer long_answer completion solution response_chosen answers.text chosen a "
    "judgement reply best_answer target targets canonical_solution instances.output answers generation "
    "ground_truth ideal assistant_message answer_text response_text reply_text solution_text "
    "target_text reference_answer gold_answer golden_answer ideal_answer expected_answer expected_output "
    "输出 回答 答案 标准答案 参考答案 回复 答复 标准回答 客服回复 回复内容 答 "
    "antwort respuesta réponse resposta ответ 답변",
    # Under these names only sentences are an answer: `query` may ask, `resolution` be "fixed".
    "prose answer": "code sql query resolution assistant agent bot ai gpt doctor therapist operator label",
    "text": "text content body document utterance 话语 文本 内容 正文 句子 评论",
    "summary": "summary highlights 摘要",
    "summarized": "article document body_text dialogue text conversation transcript 文章 正文 对话",
    "premise": "premise sentence1 text_a 前提",
    "hypothesis": "hypothesis sentence2 text_b 假设",
    "label": "gold_label label_text label_name label labels final_decision category class target label1 "
    "sentiment class_index quality is_duplicate duplicate paraphrase is_paraphrase intent accept "
    "emotion polarity stance 标签 标注 类别 分类 意图 关系 情感 情绪",
    "same meaning": "quality is_duplicate duplicate paraphrase is_paraphrase",
    "chosen letter": "answer answer_key 答案 正确答案",
    "chosen text": "correct_answer correct_option correct_choice",
    "chosen number": "cop correct correct_option label",
    "beginning": "goal sentence startphrase ctx",
    "rating": "overall_score score rating reward votes pm_score helpfulness quality_score stars overall "
    "star_rating review_score "
    "评分 得分 星级",
    "idx": "idx index id",
    "turns": "conversations messages contents",
    "exchanges": "conversation conversations messages turns dialogue dialog chat transcript data "
    "对话 聊天记录",
    "system": "system system_prompt system_message system_instruction 系统 系统提示 系统提示词 系统指令",
    "history": "history dialog_history dialogue_history chat_history 历史 对话历史 历史对话 历史记录",
    "tools": "tools functions tool_calls tool_call function_call function_calls",
    "images": "images image image_path image_paths image_url image_urls image_file image_files img imgs "
    "picture pictures photo photos",
    "videos": "videos video video_path video_paths video_url video_urls",
    "audios": "audios audio audio_path audio_paths audio_url audio_urls speech",
    "chosen": "chosen response_chosen chosen_response preferred preferred_output answer_chosen "
    "chosen_messages response_j response_good chosen_answer preferred_response better better_response "
    "better_answer good_response good_answer",
    "rejected": "rejected response_rejected rejected_response dispreferred non_preferred_output "
    "answer_rejected rejected_messages response_k response_bad rejected_answer dispreferred_response worse "
    "worse_response worse_answer bad_response bad_answer",
    "ranking": "response_0 response_1 response_a response_b better_response_id winner is_chosen is_rejected",
    "kto_tag": "kto_tag desirable is_desirable kto_label is_preferred thumbs_up thumbs",
    "feedback": "feedback user_feedback thumb rating user_rating vote 反馈 用户反馈 评价 点赞",
    "choices": "choices options endings option_a option_b option_c option_d A B C D option1 option2 choice1 "
    "choice2 sol1 sol2 opa opb opc opd distractor1 distractor2 distractor3 选项a 选项b 选项c 选项d",
    # `co_t` is CoT.
    "reasoning": "reasoning_content reasoning think thinking thought thoughts cot co_t complex_cot "
    "complex_co_t chain_of_thought 思考 思考过程 推理 推理过程",
    "parent message": "parent_id parent_message_id parent reply_to reply_to_id in_reply_to "
    "in_response_to_tweet_id in_reply_to_status_id",
    "replies": "replies children comments conversation_parts",
    "message": "role from speaker author_role message_id tweet_id",
    "turn text": "text content message value utterance body nachricht msg str_content "
    "内容 消息 文本 发言内容 消息内容 聊天内容",
    "turn order": "turn turn_id turn_index turn_number turn_no index position order seq sequence step "
    "timestamp ts time created_at date start start_time part chapter paragraph line page 序号 轮次 时间 "
    "消息序号 发言序号 对话序号 轮次序号",
}
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    role: tuple(names.split()) for role, names in _USUAL_NAMES.items()
}
NLI_PAIRS = tuple(zip(USUAL_NAMES["premise"], USUAL_NAMES["hypothesis"], strict=True))
"""Names of a premise and its hypothesis."""
PAIRS = (*NLI_PAIRS, ("question", "sentence"), ("claim", "evidence"))
"""Names of two texts that one label judges. Names that differ by their number alone need no entry."""
CHOICE_COLUMN = re.compile(
    r"(choice|option|opt|op|sol|ending|alternative|answer|选项|选择|(?=\D))_?([0-9a-h])"
)
"""A name, in snake case, of one of several columns of choices, and its number or letter: `option_a`, `a`."""
WRONG_CHOICE = re.compile(r"(distractor|incorrect_answer|wrong_answer)_?([0-9])")
"""A name of one of several columns of wrong choices. The correct one has a column of its own."""
CLASS_ENDINGS = ("type", "class", "category", "类型", "类别", "分类")
"""How the name of a column of classes ends."""

MEDIA = ("images", "videos", "audios")
_PREFERENCE = _("preference data (a chosen answer and a rejected one)")
SYSTEM_TEXT = _("a system text")
REASONING = _("reasoning before the answer")
_MEANING_BY_ROLE = {
    **{role: role for role in MEDIA},
    "chosen": _PREFERENCE,
    "rejected": _PREFERENCE,
    "ranking": _("preference data (write the better answer as `chosen` and the other as `rejected`)"),
    "kto_tag": _("feedback (KTO marks a rejected answer so)"),
    "choices": _("choices of a question"),
    "system": SYSTEM_TEXT,
    "history": _("earlier turns"),
    "tools": _("tools or calls of them"),
    "reasoning": REASONING,
}
KEY_OF_MEANING = {_MEANING_BY_ROLE[role]: role for role in (*MEDIA, "system", "history", "tools")}
"""The part of an entry's `columns` that takes a column of this meaning."""
PREFERENCES = {_MEANING_BY_ROLE[role] for role in ("chosen", "ranking")}
"""Meanings of answers beside the one that is learned."""
CHOICES = _MEANING_BY_ROLE["choices"]
"""The meaning of columns that a prompt has in words of its own."""
MEANINGS = {name: meaning for role, meaning in _MEANING_BY_ROLE.items() for name in USUAL_NAMES[role]}
MEANINGS["label"] = _("a label beside the answer (KTO marks a rejected one so)")
"""What a filled column of this name says about an answer."""
ONLY_BESIDE_AN_ANSWER = frozenset((*USUAL_NAMES["choices"], "label"))
"""Names that say nothing about a row without an answer."""


@lru_cache(1000)
def snake_case(step: str) -> str:
    """A name, one step of a path, in snake case: `systemPrompt` is `system_prompt`."""
    words = step if step.isupper() else _HUMP.sub("_", step)
    return _SIGNS.sub("_", words.lower()).strip("_")


def meaning(name: str) -> str:
    """The meaning of a source column or of a key of a message for an answer, by its name; "" if none."""
    return MEANINGS.get(usual_name(name), "")


def usual_name(name: str) -> str:
    """The last step of a path in the vocabulary's spelling: `meta.systemPrompt` becomes `system_prompt`."""
    last_step = name.rpartition(".")[2]
    if last_step in MEANINGS:
        return last_step
    return snake_case(last_step)


@lru_cache(10_000)
def usual_steps(path: str) -> tuple[str, ...]:
    """The steps of a path in the vocabulary's spelling, without positions in lists."""
    return tuple(snake_case(step) for step in path.split(".") if not step.isdigit())


@cache
def _names_by_last_step() -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The roles in order, each with the steps of its names, by the last step of the name."""
    names: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for role, usual_names in USUAL_NAMES.items():
        for name in usual_names:
            steps = usual_steps(name)
            names.setdefault(steps[-1], []).append((role, steps))
    return names


def roles_of_name(path: str) -> list[str]:
    """The roles that list a name in which the path of a source column ends (`answers.text`), in order."""
    steps = usual_steps(path)
    candidates = _names_by_last_step().get(steps[-1], []) if steps else []
    return [role for role, name_steps in candidates if steps[-len(name_steps) :] == name_steps]


def role_of_name(path: str) -> str:
    """The first role that lists the name of a source column, "" if the vocabulary lacks it.

    >>> role_of_name("prompt")
    'question'
    """
    return next(iter(roles_of_name(path)), "")
