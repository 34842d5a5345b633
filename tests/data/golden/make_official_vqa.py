"""Writes `official_vqa.json.gz`: what the official VQA evaluation makes of the recipe's answers.

    python -m tests.data.golden.make_official_vqa FOLDER PYTHON2

needs in FOLDER a checkout of github.com/GT-Vision-Lab/VQA, and a Python 2.7 to run it, which it was written for.
The file holds two lists: of each case the answer said, normalised, and its accuracy in percent.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

from tests.data.vqa_recipe import cases

GOLDEN = Path(__file__).with_name("official_vqa.json.gz")

# Runs under Python 2: reads cases from its input, prints what their code makes of them.
DRIVER = """
import json, os, sys

sys.path.insert(0, sys.argv[1] + "/PythonEvaluationTools/vqaEvaluation")
quiet, sys.stdout = sys.stdout, open(os.devnull, "w")
from vqaEval import VQAEval


class Loaded(object):
    def __init__(self, qa):
        self.qa = qa

    def getQuesIds(self):
        return sorted(self.qa)


cases = json.load(sys.stdin)
truth, said = {}, {}
for number, (answer, given) in enumerate(cases):
    annotators = [{"answer": each, "answer_id": i + 1} for i, each in enumerate(given)]
    truth[number] = {"answers": annotators, "question_type": "", "answer_type": ""}
    said[number] = {"answer": answer}
judge = VQAEval(Loaded(truth), Loaded(said), n=20)
judge.evaluate()
normal = []
for answer, _ in cases:
    cleaned = answer.replace("\\n", " ").replace("\\t", " ").strip()
    normal.append(judge.processDigitArticle(judge.processPunctuation(cleaned)))
quiet.write(json.dumps([normal, [judge.evalQA[number] for number in range(len(cases))]]))
"""


def main() -> None:
    folder, python2 = sys.argv[1:]
    given = json.dumps(cases()).encode()
    done = subprocess.run([python2, "-c", DRIVER, folder], input=given, stdout=subprocess.PIPE, check=True)
    normal, percent = json.loads(done.stdout)
    content = json.dumps({"normal": normal, "percent": percent}, separators=(",", ":")).encode()
    GOLDEN.write_bytes(gzip.compress(content, mtime=0))
    print(f"wrote {GOLDEN.name}: {len(normal)} answers")


if __name__ == "__main__":
    main()
