"""Groups of people by gender and language: one name for each, however a sheet spells it.

The lists below are all that is known; words are compared without regard to case. Any other word is a
group of its own, and a word for "not known" is none.
"""

GENDERS = {
    "female": ("f", "woman", "w", "weiblich", "femme"),
    "male": ("m", "man", "männlich", "homme"),
}
LANGUAGES = {  # of the challenge's corpora, with their ISO 639 codes and own names
    "Arabic": ("ar", "ara"),
    "Chinese": ("zh", "zho", "chi", "mandarin"),
    "Dutch": ("nl", "nld", "dut", "nederlands"),
    "English": ("en", "eng"),
    "French": ("fr", "fra", "fre", "français", "francais"),
    "German": ("de", "deu", "ger", "deutsch"),
    "Indonesian": ("id", "ind", "bahasa indonesia"),
    "Italian": ("it", "ita", "italiano"),
    "Japanese": ("ja", "jpn"),
    "Spanish": ("es", "spa", "español", "espanol"),
}
NOT_KNOWN = ("", "?", "-", "n/a", "na", "nan", "none", "unknown")


def gender(word: str) -> str:
    """`female`, `male`, another word in lower case, or "" where it is not known."""
    return _group(word, GENDERS) or _plain(word)


def language(word: str) -> str:
    """English name of a language, another word with capitals, or "" where it is not known."""
    return _group(word, LANGUAGES) or _plain(word).title()


def _plain(word: str) -> str:
    plain = " ".join(word.split()).casefold()
    return "" if plain in NOT_KNOWN else plain


def _group(word: str, groups: dict[str, tuple[str, ...]]) -> str:
    plain = _plain(word)
    return next((g for g, words in groups.items() if plain in (g.casefold(), *words)), "")
