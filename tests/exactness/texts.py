"""Five texts of over 200 tokens each, of different kinds, for tests with the default model."""

# The texts are data: long lines and look-alike characters are what they are for.
# ruff: noqa: E501, RUF001

PROSE = """The lighthouse keeper counted the steps each evening, though he knew there were one hundred and ninety-
nine of them and there always had been. Counting kept his mind from the weather. On the last night of
October the wind came round to the north-east, and by nine o'clock the glass panes of the lantern room
were humming like the strings of some enormous instrument. He trimmed the wick, wiped the salt from the
lens, and wrote in the log: "Visibility poor. Sea rough. One vessel to the south, running for harbour."
Then he put down the pen, because the light of that vessel, which had been steady a moment before, was
gone. He waited. He counted sixty seconds, then sixty more. The beam swept over black water and white
water and found nothing that was not water. When at last he saw the light again it was much nearer, and it
was moving in a direction in which no ship could possibly move, towards the rocks, slowly, as if someone
were carrying it in his hand and looking for a place to put it down."""

CODE = '''Explain what this function does, and name its complexity:

```python
from collections import defaultdict, deque


def order(edges: list[tuple[str, str]]) -> list[str]:
    """Return the nodes so that every edge points forward."""
    after, waiting = defaultdict(list), defaultdict(int)
    nodes = {}
    for first, second in edges:
        after[first].append(second)
        waiting[second] += 1
        nodes[first] = nodes[second] = None
    ready = deque(node for node in nodes if waiting[node] == 0)
    result = []
    while ready:
        node = ready.popleft()
        result.append(node)
        for other in after[node]:
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    if len(result) != len(nodes):
        raise ValueError(f"cycle among {sorted(set(nodes) - set(result))}")
    return result
```
'''

UNICODE = """Übersetze ins Englische: „Die Straße führt über den Fluß, an der alten Mühle vorbei, bis zum Gasthof ‚Zum
goldenen Löwen‘, wo es für 12,50 € ein Mittagessen gibt.“ Ensuite, en français : « Où est passé l’été ? »
demanda Zoé, naïve et déçue. Далее по-русски: «Снег шёл всю ночь, и к утру дорога исчезла».
日本語では「雪が一晩中降って、 朝には道が消えていた」と言います。 Ελληνικά: «Το χιόνι έπεφτε όλη τη νύχτα». Symbols: ∑ᵢ xᵢ² ≤ 1, α → β, ½
+ ¼ = ¾, 🙂🚀 — and an emoji with a joiner: 👩‍🔬. Numbers: 3.14159, 1 000 000, 0xFF, ٣٤٥."""

LIST = """Inventory of the village shop, counted on 4 March 1987:
1. 36 tins of tomatoes (14 oz), 0.42 each
2. 18 tins of peaches in syrup, 0.55 each
3. 7 sacks of potatoes, 25 kg, 3.80 each
4. 112 boxes of matches, 0.09 each
5. 54 candles, white, 0.12 each
6. 3 bicycle pumps, 4.75 each
7. 29 exercise books, ruled, 0.30 each
8. 61 pencils, HB, 0.08 each
9. 15 jars of honey, 1.95 each
10. 9 umbrellas, black, 6.20 each
11. 240 envelopes, 0.02 each
12. 5 kettles, 8.40 each
13. 17 balls of string, 0.65 each
Question: which three items are together worth the most, and what is the total value of the whole
inventory? Show the
sum line by line, then give the answer in one sentence."""

DIALOGUE = """ANNA: You said the experiment was finished.
BORIS: I said the measuring was finished. The experiment is finished when we know what we measured.
ANNA: Forty days of data, and you do not know?
BORIS: Forty days of numbers. Look at this curve. It rises for an hour every morning, then falls. What in
our apparatus
knows what time it is?
ANNA: The heating. It starts at six.
BORIS: I switched the heating off on the tenth day. The curve did not care.
ANNA: Then the trams. The first one passes at ten to six, and the whole building shakes.
BORIS: On Sundays there is no tram before eight. The curve rises on Sundays as well, at six, as punctual
as a monk.
ANNA: So something in this room keeps the time, and it is neither the heating nor the trams, and it is
awake on
Sundays. Boris, where does the caretaker keep her cat?
BORIS: I do not see what the cat has to do with a magnetometer."""

TEXTS = {"prose": PROSE, "code": CODE, "unicode": UNICODE, "list": LIST, "dialogue": DIALOGUE}
