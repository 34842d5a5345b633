"""How the VQA benchmark reads an answer and gives it points (Antol et al. 2015, section 5; Goyal et al. 2017).

The same results as the organisers' `vqaEval.py` (github.com/GT-Vision-Lab/VQA), bit for bit, with what it does against
expectation: answers are normalised only where annotators differ; a hyphen or slash inside a word becomes a space, but
beside a space, or with a number like 1,000 anywhere in the answer, it vanishes; of stray periods the first 32 go.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = "zero one two three four five six seven eight nine ten".split()
DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBERS)}}
ARTICLES = ("a", "an", "the")
# Each is what is written with exactly one of its apostrophes left out: dont, couldnt've and couldn'tve.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
WRITTEN_OUT = {
    word[:at] + word[at + 1 :]: word for word in CONTRACTIONS for at, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}  # the wrong way round there, and so here

_NUMBER = re.compile(r"[0-9],[0-9]")
_STRAY_PERIOD = re.compile(r"\.(?![0-9])")
_MOST_PERIODS = 32  # there a flag (re.UNICODE) stands in the place of the count
ENOUGH = 3  # annotators who say the same make an answer wholly right


def clean(answer: str) -> str:
    """What is done to every answer, whether annotators agree or not: one line, no space at its ends."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@functools.lru_cache(maxsize=1 << 16)
def normalise(answer: str) -> str:
    """An answer in the form in which it is compared where annotators differ.

    Lower case, without punctuation and articles, number words up to ten as digits, contractions with their apostrophe.
    """
    answer = clean(answer)
    number = _NUMBER.search(answer)
    kept = answer
    for sign in PUNCTUATION:
        apart = sign + " " in answer or " " + sign in answer
        kept = kept.replace(sign, "" if apart or number else " ")
    kept = _STRAY_PERIOD.sub("", kept, count=_MOST_PERIODS)
    words = (DIGITS.get(word, word) for word in kept.lower().split())
    return " ".join(WRITTEN_OUT.get(word, word) for word in words if word not in ARTICLES)


def accuracy(predicted: str, answers: Sequence[str]) -> float:
    """The points, 0 to 1, of saying `predicted` where annotators said `answers`.

    The mean over each annotator left out of min(1, how many of the others say the same / 3): of ten annotators none,
    one, two, three, or more who say it make 0, 0.3, 0.6, 0.9, 1. Where all agree, it has to be theirs to the letter.
    """
    given, said = [clean(answer) for answer in answers], clean(predicted)
    if len(set(given)) > 1:
        given, said = [normalise(answer) for answer in given], normalise(said)
    same = [answer == said for answer in given]
    # Added up in the annotators' order: another order rounds differently.
    return sum(min(1.0, (sum(same) - own) / ENOUGH) for own in same) / len(same)


def points(answers: Sequence[str]) -> dict[str, float]:
    """The answers that get points where annotators said `answers`, most points first: each with its `accuracy`.

    Normalised, unless all annotators say the same.
    """
    given = {clean(answer) for answer in answers}
    forms = dict.fromkeys(map(normalise, answers)) if len(given) > 1 else given
    found = {answer: accuracy(answer, answers) for answer in forms}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
