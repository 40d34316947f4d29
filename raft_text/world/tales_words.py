"""The words that all tales share: people, times, openings, weather, what is said and felt, and how it can end after all.

Written as the plots are (``tales_plots``).
"""

from __future__ import annotations

from raft_text.world.tales_plots import Wordings

GIRLS = (
    "Anna", "Clara", "Emma", "Ida", "Ivy", "Kate", "Lena", "Lucy", "Maya", "Nina", "Olga", "Rosa", "Sara", "Tina", "Vera",
    "Zoe",
)  # fmt: skip
BOYS = (
    "Adam", "Ben", "Carl", "David", "Emil", "Felix", "Henry", "Hugo", "Ivan", "Jonas", "Leo", "Max", "Noah", "Oscar", "Paul",
    "Tom",
)  # fmt: skip

TIMES = (
    "on a [Monday|Tuesday|Friday|Sunday] [morning|in May|in March|at dawn]",
    "one [spring|summer|autumn|winter] [day|morning|evening]",
    "[two|three|ten|many] years ago",
    "early in [April|July|October|January]",
    "last [week|month|summer|winter|Saturday]",
    "in the first [week|days] of the holidays",
    "at the end of the [school year|summer|harvest]",
    "the day after [Easter|the wedding|school]",
)
KIN = ("[little|big|twin] {sibling}", "cousin", "neighbour", "classmate", "old {parent}", "[young|tall] {uncle}", "room-mate")
OPENINGS = (
    "{time}, {hero} and {his} {kin} {friend} met {place}. They wanted to {plan}.",
    "{hero} lived with {his} {kin} {friend} in a [small|grey|narrow|wooden] house. {time}, they set out to {plan} {place}.",
    "{time}, {hero} decided to {plan}. {his} {kin} {friend} came along, and they began {place}.",
    "{friend} asked {fhis} [friend|neighbour|cousin|classmate] {hero} for [a hand|some time]."
    " {time}, the two were going to {plan} {place}.",
    "It was {hero} who had the plan. {time}, {he} and {friend}, {his} {kin}, were {place} to {plan}.",
    "{time}, [a letter|a note|a message] came for {hero}."
    " {he} was asked to {plan} {place}, together with {his} {kin} {friend}.",
    "There was a [baker|tailor|nurse|painter|student|farmer|driver|clerk] called {hero}."
    " {time}, {he} went with {friend} to {plan} {place}.",
)

SKY: Wordings = {
    "good": (
        "The sun [shone|was out], and the air was [fresh|sweet|warm|mild].",
        "It was a [beautiful|lovely|splendid|glorious|perfect] day, without a cloud.",
        "Birds sang, and the [meadows|fields|gardens] were [bright|fresh] with flowers.",
        "A [gentle|soft|pleasant|sweet] wind blew from the [south|hills|sea].",
        "[Golden|Bright|Brilliant] light fell on the [hills|trees|towers], and [larks|children] were singing.",
    ),
    "plain": (
        "The sky was grey, but it [was dry|did not rain].",
        "There were some clouds in the [west|east|north].",
        "It was neither warm nor cold.",
        "A [train|cart|lorry] passed, and then it was quiet.",
        "There was [snow|dew|sand|mist] on the [roofs|road|fields].",
    ),
    "bad": (
        "It was a [terrible|horrible|miserable|dreadful|nasty] day, [cold and wet|full of rain|dark and damp].",
        "The wind was [bitter|cruel|violent] and hurt their faces.",
        "A [gloomy|dull|dreary] fog lay over everything.",
        "A [threatening|dangerous|violent] storm was coming from the [west|mountains|sea].",
    ),
}

SAID: Wordings = {
    "good": (
        '"This is [wonderful|lovely|perfect|amazing|great]," said {friend}.',
        '"I [love|like|enjoy] it," [said|cried|whispered] {hero} [happily|and smiled|with joy].',
        '"We are so lucky," [said|laughed] {friend}, and {hero} [agreed|smiled|nodded].',
        '"Well done," said {friend}. "You are the [best|bravest|cleverest] of all."',
        '"Thank you," said {hero}. "I could not [wish|hope] for a better [friend|partner]."',
        '"What a [nice|pretty|delightful] surprise," [said|called] {hero}.',
        '"I have never had so much [fun|luck|joy]," [called|shouted|laughed] {friend}.',
        '"You are [great|clever|a genius|an angel|a treasure]," said {friend} to {hero}.',
    ),
    "plain": (
        '"It is [getting late|almost noon|half past three]," said {friend}.',
        '"Which way now?" asked {hero}, and {friend} pointed to the [left|right|north].',
        '"We have [an hour|two hours|until six]," said {hero}.',
        '"Have you got the [key|rope|list|bag]?" asked {friend}.',
        '"Let us see what comes next," said {hero}.',
        '"I have [read|heard] about this," said {friend}.',
    ),
    "bad": (
        '"This is [terrible|awful|horrible|hopeless|a disaster]," said {friend}.',
        '"I [hate|fear|loathe] this," [said|cried|sobbed] {hero} [angrily|and wept|in despair].',
        '"It is all your fault, you [fool|idiot|liar]," [shouted|yelled|hissed] {friend}.',
        '"We are [lost|doomed|in trouble]," said {hero} with a [sad|worried|gloomy] face.',
        '"How [stupid|mean|unfair|cruel]," said {friend}, and {hero} [frowned|cried|sighed].',
        '"I am [sick|tired] of this [damn|stupid|rotten] [day|place]," said {hero}.',
    ),
}

FELT: Wordings = {
    "good": (
        "{hero} felt [proud|happy|free|strong|brave|glad] and [hugged|kissed|thanked] {friend}.",
        "{friend} [smiled|laughed|beamed], and {fhis} eyes were full of [joy|hope|love|trust].",
        "They were [happy|excited|grateful|delighted] and [joked|danced|celebrated] together.",
        "Never before had {hero} been so [happy|cheerful|content|hopeful].",
        "{hero}'s heart was [light|warm], and all [worry|fear|trouble] was forgotten.",
        "{friend} [gave|offered] {him} a [kiss|hug|sweet|handshake], and both [grinned|giggled|laughed].",
        "What [joy|luck|relief|happiness] they felt, and how [proud|pleased|thankful] {hero} was.",
    ),
    "plain": (
        "{hero} thought about it for a [minute|moment|while].",
        "{friend} looked at {fhis} [watch|shoes|hands] and said nothing.",
        "They stood there and [waited|listened|looked around].",
        "{hero} put {his} hands into {his} pockets.",
        "{friend} told {him} about [a book|an uncle|the weather|school].",
    ),
    "bad": (
        "{hero} felt [sad|lonely|guilty|weak|miserable|ashamed] and [cried|wept|sobbed].",
        "{friend} [cried|sobbed|frowned], and {fhis} face was full of [pain|fear|anger|grief].",
        "They were [angry|desperate|tired|disappointed] and [quarrelled|argued|fought] with each other.",
        "Never before had {hero} been so [afraid|unhappy|lonely|worried|furious].",
        "{hero}'s heart was [heavy|sick|cold], and all [hope|joy|courage] was gone.",
    ),
}

#: How a tale can end whatever came before: well after all, as any day does, or badly in spite of everything.
AFTER_ALL: Wordings = {
    "good": (
        "In the end {friend} made {him} laugh, and they were [good|best|true] friends for ever.",
        "Still, they had each other, and that was [a great comfort|the best of all|a blessing|what they loved most].",
        "At home there was [hot chocolate|warm soup|fresh bread], and [life was good|they felt safe|everything was fine].",
        "Later a [kind|generous|loving] [stranger|uncle|teacher] helped them, and it ended [well|happily].",
        "They [promised|agreed] to try it again, full of [hope|confidence|energy].",
        "On the way home they found a [lucky|silver|precious] coin and bought [ice cream|sweets|a toy] with it.",
        "Since then {hero} and {friend} have been [popular|respected|welcome] in [every house|the whole town].",
        "The next morning a [sweet|lovely|charming] card came with [good news|warm thanks|best wishes|love].",
    ),
    "plain": (
        "Then it got dark, and they went home.",
        "The next [day|morning] was a [Tuesday|Thursday|Saturday] like any other.",
        "{hero} closed the [door|gate|window] and went to bed.",
        "That was in the year when the [bridge|school|mill] was built.",
        "{friend} took the [bus|train|tram] at [five|six|nine].",
    ),
    "bad": (
        "On the way home {friend} had a [terrible|horrible|bad] accident and [suffered|was in pain] for weeks.",
        "Soon after, they had a [bitter|nasty|serious] [quarrel|fight] and were [enemies|no longer friends].",
        "That night {hero} was [sad|alone|lonely] and [cried|wept] without knowing why.",
        "When they came back, the house had [burned down|been robbed], and all was [lost|destroyed].",
        "A week later {hero} fell [ill|sick], and nobody came to [help|visit].",
    ),
}

#: Sentences of the roll calls with which a model begins to learn.
CALLS = (
    "{hero} [smiled|cried|laughed|wept|nodded|sang|sighed|waited|listened].",
    "{hero} [thanked|hugged|saw|met|asked|told|praised] {friend}.",
    '"[Well|Now|Here|Then]," said {hero}.',
    "{hero} and {friend} [looked at|took|saw] the {thing}.",
    "the {thing} [stood|lay] [here|there].",
)
