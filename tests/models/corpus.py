"""Text that finds differences between tokenizers: Unicode, code, numbers, white space, special tokens."""

from __future__ import annotations

import random

LINES = (
    "",
    " ",
    "Hello world",
    " leading space",
    "trailing space ",
    "It's they'll we've I'm you'd he's; IT'S THEY'LL",
    "naïve café — “quoted” … ½ µ ß ﬁ Ǆ İstanbul",
    "e\u0301 versus \u00e9, a\u030a versus \u00e5, \u1112\u1161\u11ab versus \ud55c",
    "你好,世界!こんにちは、世界。안녕하세요 세계",
    "Привет, мир! مرحبا بالعالم שלום עולם नमस्ते दुनिया ภาษาไทย",
    "😀👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 \u200b\u200d\ufeff\u00a0\u2003|",
    "\U0001d54c\U0001d55f\U0001d55a𐍈 𝟙𝟚𝟛 ① ② Ⅷ ٣٤٥ ४५ ²³",  # noqa: RUF001
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-05 v2.0.1 2026-11-23T19:17:00Z",
    "a1b2c3 x86_64 4chan B2B 100% $9.99 #42",
    "def f(x: int) -> str:\n    if x >= 10:\n        return f\"{x!r}\"\n    return 'no'\n",
    "for (int i = 0; i < n; ++i) {\n\ta[i] ^= b[i] << 3;\t// mix\n}\n",
    '<html><body class="a b">&amp;&nbsp;</body></html>',
    "SELECT * FROM t WHERE a<>b AND c LIKE '%x%';",
    "\\frac{a}{b} \\\\ $x^2 + y_1$ ~/.bashrc C:\\dir\\file.txt",
    "https://example.org/a?b=c&d=%20e#f user@example.org",
    "\n\n\nthree newlines\r\nwindows\rmac\n\n",
    "tabs\t\tand   runs    of     spaces      end   ",
    "a\x00b\x01\x7f control",
    "supercalifragilisticexpialidocious Donaudampfschifffahrtsgesellschaft",
    "AAAAAAAAAAAAAAAA !!!!!!!!!!!! ........ ------ ====== ######",
    "\ufffd replacement \ud7ff \ue000 \U0010ffff",
)
SPECIAL_LINES = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "before<|im_end|>after <|im_end|> spaced",
    "<|endoftext|><|endoftext|>",
    "<|im_start|",
    "< |im_end|>",
)


def random_lines(seed: int, count: int) -> list[str]:
    """Lines of characters drawn from several blocks of Unicode; never a lone surrogate."""
    source = random.Random(seed)
    blocks = [
        (0x20, 0x7F),
        (0x09, 0x0E),
        (0x30, 0x3A),
        (0xA0, 0x250),
        (0x370, 0x400),
        (0x4E00, 0x4F00),
        (0x1F600, 0x1F640),
    ]
    lines = []
    for _ in range(count):
        chosen = [source.choice(blocks) for _ in range(source.randrange(1, 60))]
        lines.append("".join(chr(source.randrange(*block)) for block in chosen))
    return lines
