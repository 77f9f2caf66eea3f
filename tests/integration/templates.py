"""Chat templates that write what LLaMA-Factory's templates of these names do, and short talks."""

from testing.tiny import CHATML

SMOLLM2 = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # as the model ships it
QUESTION = 'Does "Två män   går.\n" imply that "不确定 <b>"? Please answer yes or no.You only need one word'
TEMPLATES = {  # what a tokenizer would ship for each of LLaMA-Factory's templates
    "qwen": CHATML.replace(
        "You are a helpful assistant.", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    ),
    "smollm2": CHATML.replace("You are a helpful assistant.", f"{SMOLLM2}."),
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}
PROBES = {
    "plain": [{"role": "user", "content": QUESTION}],
    "system": [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": QUESTION}],
    "turns": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": QUESTION},
    ],
}
