"""Logs of other evaluation tools, written by the tools themselves from made-up questions.

The files are in tests/golden/compare/tools, and tests/unit/eval_runs/test_logs_tools.py reads them. Each tool
has an environment of its own, from the root of the checkout:

    python -m venv build/inspect && build/inspect/bin/pip install inspect-ai==0.3.285
    build/inspect/bin/python -m tools.logs.inspect_ai tests/golden/compare/tools/inspect_ai
    … lighteval==0.13.0 xxhash==3.6.0, python -m tools.logs.lighteval …/tools/lighteval
    … evalscope==1.14.1, python -m tools.logs.evalscope …/tools/evalscope
    … opencompass==0.5.4 pyarrow==17.0.0, python -m tools.logs.opencompass …/tools/opencompass
    npm install --prefix build/promptfoo promptfoo@0.121.20
    python -m tools.logs.promptfoo build/promptfoo/node_modules/.bin/promptfoo …/tools/promptfoo
"""
