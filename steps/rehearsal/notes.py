# TEMPORARY WARNING (10:38): the helper briefed to own steps/rehearsal/ overwrote an earlier notes.py here
# at 10:35 by mistake, unread and without a copy. Whoever wrote it (the training in scratch/m1 uses it) has
# to write it again if it is wanted. tokenizer.py and train.py are untouched, copies in scratch-model/found.
"""The grammar of the rehearsal benchmark: notes full of facts, questions and their true answers.

A fact is one sentence of nine words, for example ``Anna sold Smith 37 large red Oslo lamps .``.
No word of any slot occurs twice in a note, so a fact can be found by each of its words. A question
asks for some of the facts and the true answer repeats them word for word.

Only ``random.Random`` decides what is drawn, so a seed gives the same notes on every machine.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random

SLOTS: tuple[tuple[str, ...], ...] = tuple(
    tuple(words.split())
    for words in (
        # Who
        "Anna Boris Clara David Elena Felix Grace Henry Irene Jacob Karla Louis Maria Nadia Oscar "
        "Paula Quinn Rosa Simon Tanya Ulric Vera Walter Xenia Yusuf Zelda Amir Bella Cyrus Diana "
        "Ethan Fiona Gavin Heidi Isaac Julia Kevin Laura Marco Nina Oliver Petra Ralph Sofia "
        "Tomas Ursula Victor Wanda",
        # did what
        "sold gave sent lent brought showed offered promised handed mailed passed bought made "
        "built found fetched ordered left threw tossed served loaned leased rented shipped wired "
        "posted rolled granted awarded spared kept picked chose reserved booked carved painted "
        "delivered donated returned supplied forwarded assigned entrusted traded stored procured",
        # for whom
        "Smith Jones Brown Taylor Wilson Davies Evans Thomas Johnson Roberts Walker Wright "
        "Robinson Thompson Hughes Edwards Green Lewis Wood Harris Martin Jackson Clarke Turner "
        "Hill Cooper Ward Moore Morris King Watson Baker Harrison Morgan Patel Young Allen "
        "Mitchell Anderson Phillips Lee Bell Parker Davis Bennett Miller Cook Shaw",
        # how many
        " ".join(str(number) for number in range(21, 69)),
        # of what kind
        "large small heavy light tall short wide narrow thick thin round square flat curved smooth "
        "rough soft hard new old clean dusty shiny dull cheap costly rare common plain fancy "
        "solid hollow folded broken sturdy fragile modern antique simple ornate warm cold dry wet "
        "sharp blunt loose tight",
        # of what colour
        "red blue yellow orange purple pink black white grey beige violet indigo cyan magenta "
        "crimson scarlet maroon navy teal olive lime amber golden silver copper bronze ivory cream "
        "khaki ochre rust ruby emerald jade turquoise azure lilac mauve plum coral peach salmon "
        "tan sepia umber charcoal pearl mint",
        # from where
        "Oslo Paris Berlin Madrid Rome Vienna Prague Warsaw Athens Lisbon Dublin London Zurich "
        "Geneva Munich Milan Naples Turin Lyon Nice Porto Seville Malaga Bergen Malmo Turku Riga "
        "Vilnius Tallinn Minsk Kyiv Skopje Zagreb Split Cairo Tunis Lagos Accra Nairobi Lima Quito "
        "Bogota Havana Boston Denver Dallas Seattle Toronto",
        # what
        "lamps chairs tables clocks books bottles baskets boxes bells boots brushes buttons "
        "candles carpets coins combs cups curtains desks dolls doors drums flags flutes forks "
        "gloves guitars hammers hats jackets kettles keys kites knives ladders mirrors nails "
        "pencils pianos pillows plates ropes saws scarves shoes spoons vases wheels",
    )
)
