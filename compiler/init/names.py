"""The names by which columns go, in English and Chinese, and the words of the prompts in both."""

PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("text_a", "text_b"), ("text1", "text2"),
    ("前提", "假设"), ("句子1", "句子2"), ("文本1", "文本2"),
)  # fmt: skip
LABELS = ("gold_label", "label", "labels", "final_decision", "category", "class", "target", "label1",
          "sentiment", "标签", "标注", "类别", "分类")  # fmt: skip
CLASSES = ("type", "class", "category", "类型", "类别", "分类")  # how the name of a column of classes ends
ASKED = ("instruction", "prompt", "question", "query", "problem", "task", "ask", "q",
         "指令", "提示", "问题", "提问", "题目")  # fmt: skip
CONTEXT = ("input", "context", "contexts", "passage", "event", "输入", "上下文", "背景", "补充信息")
ANSWERED = ("output", "response", "answer", "long_answer", "completion", "solution", "response_chosen",
            "answers.text", "chosen", "a", "judgement", "reply",
            "输出", "回答", "答案", "回复", "答复")  # fmt: skip
MARKS = ("kto_tag", "label", "desirable", "is_desirable")  # of KTO: whether an answer is wanted
RATINGS = ("overall_score", "score", "rating", "reward", "votes", "pm_score", "评分", "得分")
CHOSEN = ("answer", "答案", "正确答案")  # the letter of a choice
TEXT = ("text", "content", "body", "document", "文本", "内容", "正文", "句子", "评论")
MEANINGS: dict[object, str] = {
    "entailment": "yes", "not_entailment": "no", "neutral": "maybe", "contradiction": "no", "蕴含": "yes",
    "中立": "maybe", "矛盾": "no", "-": "unlabelled", -1: "unlabelled",
}  # fmt: skip
GLUE = {2: ("yes", "no"), 3: ("yes", "maybe", "no")}
CHINESE = {"yes": "是", "no": "否", "maybe": "可能", "unlabelled": "unlabelled"}
JUDGE = {
    False: 'Does "{{premise}}" imply that "{{hypothesis}}"? Please answer {}.',
    True: "由“{{premise}}”能否推出“{{hypothesis}}”？请只用一个词回答：{}。",
}
CLASSIFY = {False: "{{text}}\n\nPlease answer {}.", True: "{{text}}\n\n请只用一个词回答：{}。"}
OR = {False: " or ", True: "、"}
SPLITS = {
    "train": ("train", "training", "训练"),
    "eval": ("eval", "evaluation", "dev", "val", "valid", "validation", "验证"),
    "test": ("test", "测试"),
}
