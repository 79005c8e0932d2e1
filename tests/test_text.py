"""Tokens agree with transformers', have one length, and keep their last token."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from memejax.data.text import (
    SPECIAL_TOKENS,
    encode,
    load_tokenizer,
    pad_id,
    save_tokenizer,
    shorten,
    train_wordpiece,
)

SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
REPLACE = {"type": "Replace", "pattern": {"String": "a"}}
VOCABULARY = [
    *SPECIAL_TOKENS,
    *"! ' , . ? # @ & - ( ) : 0 1 2 a b c d e l n o s t é 中 文 😂 ❤".split(),
    *"the cat sat on mat cafe café Cafe Café The CAT naive".split(),
    *"##s ##ting ##t ##! ##é ##e ##n ##o un ##known look now you".split(),
]
CAPTIONS = {
    "plain": "the cat sat on the mat",
    "case": "The CAT sat ON the Mat",
    "accents": "Café cafés naïve é",
    "combining accent": "cafe\u0301",
    "chinese": "the 中文 cat中sat",
    "punctuation": "look, the cats! (don't) #cat @the: a-b?!.",
    "emoji": "the cat 😂 😂😂 ❤️ 🐱",
    "unknown": "xylophone cats unknown qqq",
    "digits": "012 1.0",
    "whitespace": "  the\tcat\n\nsat\u00a0on\u3000the mat\r\n",
    "control characters": "the\u0000 ca\u200bt\ufffd sat\u0007",
    "special tokens in the text": "the [SEP] cat [MASK] [PAD] sat",
    "long word": "c" * 150,
    "empty": "",
    "spaces alone": "   ",
    "too long": "the cat sat on the mat " * 20,
}


def vocab_folder(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False},
        {"tokenize_chinese_chars": False},
    ],
    ids=str,
)
def test_vocab_txt_agrees_with_transformers(tmp_path, settings):
    from transformers import BertTokenizerFast

    folder = vocab_folder(tmp_path / "bert", **settings)
    reference = BertTokenizerFast(vocab=os.path.join(folder, "vocab.txt"), **settings)
    tokenizer = load_tokenizer(folder)
    captions = list(CAPTIONS.values())
    got = encode(tokenizer, captions, length=24)
    want = reference(
        captions,
        padding="max_length",
        truncation=True,
        max_length=24,
        return_tensors=None,
    )
    for row, name in enumerate(CAPTIONS):
        assert got.input_ids[row].tolist() == want["input_ids"][row], name
        assert got.attention_mask[row].tolist() == want["attention_mask"][row], name
    lengths = [len(ids) for ids in reference(captions)["input_ids"]]
    assert got.truncated == sum(length > 24 for length in lengths) > 0


def test_ids_worked_out_by_hand(tmp_path):
    tokenizer = load_tokenizer(vocab_folder(tmp_path / "bert"))
    place = {token: k for k, token in enumerate(VOCABULARY)}
    got = encode(tokenizer, ["The cats, unknown 中!", "zzz", ""], length=10)
    pieces = "[CLS] the cat ##s , un ##known 中 ! [SEP]".split()
    assert got.input_ids.tolist() == [
        [place[piece] for piece in pieces],
        [2, 1, 3, 0, 0, 0, 0, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert got.attention_mask.sum(1).tolist() == [10, 3, 2]
    assert got.input_ids.dtype == got.attention_mask.dtype == np.int32
    assert got.truncated == 0


@pytest.mark.parametrize(("length", "cut"), [(9, True), (10, False), (3, True)])
def test_truncation_keeps_the_last_token(tmp_path, length, cut):
    tokenizer = load_tokenizer(vocab_folder(tmp_path / "bert"))
    captions = ["the cat sat on the mat , you", "the cat"]
    got = encode(tokenizer, captions, length=length)
    assert got.input_ids.shape == (2, length)
    assert got.input_ids[0, 0] == 2 and got.input_ids[0, length - 1] == 3
    whole = encode(tokenizer, captions, length=10).input_ids[0]
    np.testing.assert_array_equal(got.input_ids[0, :-1], whole[: length - 1])
    # At length 3, "the cat" has 4 tokens and is cut too.
    assert got.truncated == int(cut) + (length == 3)


def test_other_names_of_special_tokens(tmp_path):
    folder = tmp_path / "renamed"
    folder.mkdir()
    names = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<m>"}
    (folder / "vocab.txt").write_bytes(
        "\r\n".join([*names.values(), "the", "cat"]).encode()
    )
    settings = {f"{kind}_token": name for kind, name in names.items()}
    settings["cls_token"] = {"content": "<s>", "lstrip": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(folder))
    got = encode(tokenizer, ["the cat dog"], length=7)
    assert got.input_ids.tolist() == [[2, 5, 6, 1, 3, 0, 0]]
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"holds no \[PAD\], \[UNK\]"):
        load_tokenizer(str(folder))


def test_saved_tokenizer_loads_from_folder_and_file(tmp_path):
    first = load_tokenizer(vocab_folder(tmp_path / "bert"))
    # Settings that a published tokenizer.json may hold, and which must not count.
    first.enable_truncation(4)
    first.enable_padding(length=6, pad_id=0, pad_token="[PAD]", direction="left")
    save_tokenizer(first, str(tmp_path / "saved" / "here"))
    captions = list(CAPTIONS.values())
    plain = load_tokenizer(os.path.join(tmp_path, "bert", "vocab.txt"))
    want = encode(plain, captions, length=12)
    for where in ("saved/here", "saved/here/tokenizer.json"):
        tokenizer = load_tokenizer(str(tmp_path / where))
        got = encode(tokenizer, captions, length=12)
        np.testing.assert_array_equal(got.input_ids, want.input_ids)
        np.testing.assert_array_equal(got.attention_mask, want.attention_mask)
        assert got.truncated == want.truncated
        # The tokenizer handed in is left as it was.
        assert tokenizer.truncation["max_length"] == 4


def test_what_was_looked_for_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "tokenizer.json").write_text("{}")
    cases = {
        str(tmp_path / "no"): "no such folder or file.*tokenizer.json or vocab.txt",
        "./no": "no such folder or file",
        "a/b/c": "no such folder or file",
        str(tmp_path / "empty"): "looked for tokenizer.json, vocab.txt, and vocab.json",
        str(tmp_path / "tokenizer.json"): "is not a tokenizer.json",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            load_tokenizer(name)


def test_hub_name_is_found_in_the_local_cache(tmp_path):
    """A cache folder as the hub's client lays it out, read without a network."""
    model = tmp_path / "hub" / "models--memejax--tiny"
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    save_tokenizer(load_tokenizer(vocab_folder(tmp_path / "bert")), str(snapshot))
    (snapshot / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (snapshot / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizerFast", "do_lower_case": True})
    )
    code = (
        "from memejax.data.text import encode, load_tokenizer\n"
        "t = load_tokenizer('memejax/tiny')\n"
        "print(encode(t, ['The cats'], length=6).input_ids.tolist())\n"
        "try:\n    load_tokenizer('memejax/none')\n"
        "except ValueError as error:\n    print(error)\n"
        "import sys; print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "HF_HOME": str(tmp_path),
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "1",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    the, cat, s = (VOCABULARY.index(token) for token in ("the", "cat", "##s"))
    lines = done.stdout.splitlines()
    assert lines[0] == str([[2, the, cat, s, 3, 0]])
    assert "no tokenizer 'memejax/none': looked for a folder or file" in lines[1]
    assert lines[-1] == "False"


def made_up_captions():
    rng = random.Random(0)
    words = [
        "".join(rng.choice("abcdefghij") for _ in range(rng.randint(1, 6)))
        for _ in range(200)
    ]
    return [" ".join(rng.choice(words) for _ in range(6)) for _ in range(200)]


def test_training_does_not_depend_on_the_order():
    captions = made_up_captions()
    first = train_wordpiece(captions, vocab_size=150).to_str()
    for seed in range(4):
        shuffled = random.Random(seed).sample(captions, len(captions))
        assert train_wordpiece(shuffled, vocab_size=150).to_str() == first


def test_training_does_not_depend_on_the_process():
    """The hash maps of the trainer are seeded anew in each process."""
    code = (
        "import sys, json; from memejax.data.text import train_wordpiece; "
        "captions = json.load(sys.stdin); "
        "print(train_wordpiece(captions, vocab_size=150).to_str())"
    )
    captions = made_up_captions()
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(captions),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=True,
    )
    assert done.stdout.strip() == train_wordpiece(captions, vocab_size=150).to_str()


def test_learned_vocabulary_worked_out_by_hand():
    # Pairs: (h, ##u) 3 + 2 = 5 times, (##u, ##g) 3 times, (##u, ##p) 2, (p, ##!) no:
    # "!" is a word by itself. After "hu": (hu, ##g) 3, (hu, ##p) 2.
    captions = ["hug hug hug!", "hup Hup"]
    tokenizer = train_wordpiece(captions, vocab_size=15)
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    assert tokens == [
        *SPECIAL_TOKENS,
        *["!", "g", "h", "p", "u", "##g", "##p", "##u"],
        *["hu", "hug"],
    ]
    got = encode(tokenizer, ["HUG hup!", "hugs"], length=7)
    ids = {token: place for place, token in enumerate(tokens)}
    want = [2, ids["hug"], ids["hu"], ids["##p"], ids["!"], 3, 0]
    assert got.input_ids.tolist() == [want, [2, 1, 3, 0, 0, 0, 0]]
    assert tokenizer.decode(want) == "hug hup!"
    # Seen twice is too seldom for a merge under min_frequency 3: no "hup".
    more = train_wordpiece(captions, vocab_size=99, min_frequency=3).get_vocab()
    assert sorted(more, key=lambda token: more[token]) == tokens
    assert "hup" in train_wordpiece(captions, vocab_size=99).get_vocab()


def test_case_and_accents():
    captions = ["Été été"] * 3
    lower = train_wordpiece(captions, vocab_size=50).get_vocab()
    assert "ete" in lower and "Été" not in lower
    cased = train_wordpiece(captions, vocab_size=50, lowercase=False).get_vocab()
    assert "Été" in cased and "été" in cased


def test_vocab_size_is_an_upper_limit():
    # 26 letters, each at the start and inside of words, do not fit into 20 - 5.
    captions = [f"{a}{a} eee" for a in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = train_wordpiece(captions, vocab_size=20)
    assert tokenizer.get_vocab_size() <= 20
    # The rarest go: "zz" is unknown, "eee" and "aa" are not.
    got = encode(tokenizer, ["zz", "eee aa"], length=8)
    assert got.input_ids[0, :3].tolist() == [2, 1, 3]
    assert not (got.input_ids[1] == 1).any()


def test_what_cannot_be_trained_or_encoded_is_said(tmp_path):
    tokenizer = load_tokenizer(vocab_folder(tmp_path / "bert"))
    with pytest.raises(ValueError, match="vocab_size is 5"):
        train_wordpiece(["a"], vocab_size=5)
    with pytest.raises(ValueError, match="no word"):
        train_wordpiece(["", "  "], vocab_size=50)
    with pytest.raises(ValueError, match="length is 2, expected more than the 2"):
        encode(tokenizer, ["a"], length=2)
    with pytest.raises(ValueError, match="caption 1 is a NoneType"):
        encode(tokenizer, ["a", None], length=8)
    with pytest.raises(ValueError, match="caption 0 is not valid Unicode"):
        encode(tokenizer, ["\ud83d"], length=8)
    assert encode(tokenizer, [], length=8).input_ids.shape == (0, 8)


def test_padding_token_of_other_tokenizers():
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 3, "cat": 0, "?": 1}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert pad_id(tokenizer) == 3
    # Without special tokens there is none to keep at the end.
    got = encode(tokenizer, ["cat dog cat cat", "cat"], length=3)
    assert got.input_ids.tolist() == [[0, 1, 0], [0, 3, 3]] and got.truncated == 1
    with pytest.raises(ValueError, match=r"looked for \[PAD\] and <pad>"):
        pad_id(Tokenizer(models.WordLevel({"?": 0}, "?")))


def test_long_words_and_captions_do_not_stall_training():
    captions = ["a word " * 3, "x" * 200_000, " ".join(["y" * 249] * 10_000)]
    began = time.perf_counter()
    tokenizer = train_wordpiece(captions, vocab_size=60)
    # 14 s for one word, minutes for a megabyte, if they were trained on.
    assert time.perf_counter() - began < 5
    vocabulary = tokenizer.get_vocab()
    assert "word" in vocabulary and not {"x", "y"} & set(vocabulary)
    tokens = encode(tokenizer, captions, length=12)
    assert tokens.truncated == 2
    assert tokens.input_ids[1, 1] == vocabulary["[UNK]"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": SPLIT | {"pattern": {"Regex": "(a+)+$"}}}, "take forever"),
        ({"normalizer": REPLACE | {"content": "x" * 101}}, "replaces by 101 char"),
        ({"model": {"id": 2**31 - 1}}, "largest id is"),
    ],
)
def test_tokenizers_that_would_stall_or_fill_memory(tmp_path, change, message):
    tokenizer = train_wordpiece(["some words"], vocab_size=40)
    save_tokenizer(tokenizer, str(tmp_path))
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    for name, part in change.items():
        if name == "model":
            content["model"]["vocab"]["far"] = part["id"]
        else:
            content[name] = part
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("longest", "given", "left"),
    [(0, 64, 16), (16, 64, 16), (17, 64, 32), (33, 64, 64), (33, 40, 40), (5, 8, 8)],
)
def test_padding_that_nobody_needs_is_cut_off(longest, given, left):
    ids = np.arange(3 * given, dtype=np.int32).reshape(3, given)
    mask = (np.arange(given) < np.array([[longest], [1], [0]])).astype(np.int32)
    short = shorten(ids, mask)
    np.testing.assert_array_equal(short[0], ids[:, :left])
    np.testing.assert_array_equal(short[1], mask[:, :left])
    assert short[1].sum() == mask.sum()
