"""What the tales are about: the plans that people make, and what comes of them.

``[a|b|c]`` is one of several wordings; ``{hero}``, ``{he}``, ``{him}``, ``{his}`` are the first person, ``{friend}``,
``{fhe}``, ``{fhim}``, ``{fhis}`` the second, ``{thing}`` is what the tale chose, and ``{the}`` the same when it has been
spoken of before (a letter, the letter).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mood = Literal["good", "plain", "bad"]
Wordings = Mapping[Mood, tuple[str, ...]]


@dataclass(frozen=True)
class Plot:
    """A plan and what can come of it.

    Attributes:
        plan: what they want to do, as an infinitive.
        things, places: of which a tale takes one each.
        first: how it begins to go.
        then: what becomes of it; may follow any of ``first``.
        last: how that ends; follows ``then`` of the same mood alone.
    """

    plan: str
    things: tuple[str, ...]
    places: tuple[str, ...]
    first: Wordings
    then: Wordings
    last: Wordings


PLOTS: Mapping[str, Plot] = {
    "search": Plot(
        plan="find the lost {thing}",
        things=("dog", "cat", "goat", "pony", "puppy", "hen", "lamb", "donkey"),
        places=("in the woods", "by the harbour", "behind the mill", "in the hills", "around the village", "along the canal"),
        first={
            "good": (
                "After [an hour|a while] they found fresh tracks, and {friend} [smiled|cheered|clapped].",
                "A kind old [farmer|woman|baker] had seen the {thing} near [the church|the well|a barn].",
                "Some [friendly|helpful|cheerful] children offered to [help|join] them.",
            ),
            "plain": (
                "They looked behind the [houses|hedges|walls|sheds] first.",
                "{hero} asked at the [shop|school|station|inn].",
                "They put up a [note|drawing] of the {thing} on a [door|tree|fence].",
            ),
            "bad": (
                "There was no [trace|sign] of the {thing}, and {hero} began to [worry|cry|panic].",
                "{friend} fell into a [ditch|hole|stream] and hurt {fhis} [knee|arm|foot|ankle].",
                "A [rude|nasty|grumpy] man [yelled at|threatened] them and chased them off his land.",
            ),
        },
        then={
            "good": (
                "Suddenly the {thing} came running and jumped into {his} arms with [joy|delight].",
                "Under a bush sat the {thing}, [safe|unharmed] and [warm|well], and glad to see them.",
                "A [generous|kind|brave] boy brought the {thing} back and wanted no reward.",
            ),
            "plain": (
                "[At noon|Later] they ate some bread on a [wall|bench] and went on looking.",
                "In the evening they walked back along the [road|path|river].",
                "They left a bowl of [milk|water|food] outside the door.",
            ),
            "bad": (
                "They found only a [torn|dirty|broken] rope, and {hero} [cried|wept|sobbed].",
                "The {thing} was caught in a [cruel|nasty|rusty] trap and badly hurt.",
                "Somebody had stolen the {thing}, and the thief was [gone|far away].",
            ),
        },
        last={
            "good": (
                "That night the {thing} slept [happily|peacefully|safely] at the foot of {his} bed.",
                "{hero} hugged the {thing} and gave it the best [supper|dinner] of its life.",
            ),
            "plain": ("A week later the {thing} came home by itself.", "The {thing} was still out when the lamps were lit."),
            "bad": (
                "They never saw the {thing} again, and the [yard|house|barn] felt empty and sad.",
                "{hero} lay awake all night and blamed {him}self for the loss.",
            ),
        },
    ),
    "baking": Plot(
        plan="bake a {thing} for the [party|feast|fair]",
        things=("cherry cake", "plum pie", "honey cake", "lemon tart", "nut loaf", "berry pie", "carrot cake", "ginger loaf"),
        places=(
            "in the old kitchen",
            "at the bakery",
            "in the school kitchen",
            "at the farmhouse",
            "in a tiny flat",
            "at the inn",
        ),
        first={
            "good": (
                "The dough rose [beautifully|perfectly], and the whole room smelled [sweet|wonderful|delicious].",
                "{friend} knew a [clever|splendid|great] recipe that {fhis} aunt had [loved|treasured].",
                "They [sang|laughed] and had [great|such] fun with the [flour|butter|eggs].",
            ),
            "plain": (
                "First they weighed the [flour|sugar|butter] and counted the eggs.",
                "{hero} read the recipe aloud, and {friend} stirred.",
                "They borrowed a large [bowl|tin|spoon] from next door.",
            ),
            "bad": (
                "{hero} dropped the eggs and made a [terrible|horrible|nasty] mess.",
                "There was salt in the sugar jar, and the dough tasted [awful|disgusting|horrible].",
                "{friend} burned {fhis} [hand|thumb|fingers] on the stove and [cried|screamed].",
            ),
        },
        then={
            "good": (
                "The {thing} came out [golden|perfect] and [delicious|lovely], the best they had ever made.",
                "Everybody wanted a second piece of the {thing} and praised the [cooks|bakers|two of them].",
                "The judges [loved|admired] the {thing} and gave it first prize.",
            ),
            "plain": (
                "They put the {thing} on the [shelf|table|sill] and waited for it to cool.",
                "The {thing} was a little flat, but it was [brown|done] on time.",
                "They cut the {thing} into [eight|ten|twelve] pieces and covered it with a cloth.",
            ),
            "bad": (
                "They forgot the time, and the {thing} was [burnt|ruined], black and bitter.",
                "The {thing} [fell|slid] off the table, and the dog ate the [miserable|sad] remains.",
                "Two guests got sick from the {thing} and [complained|argued] loudly.",
            ),
        },
        last={
            "good": (
                "They [celebrated|rejoiced] until midnight, and not a crumb was left.",
                "{hero} saved the last slice for {friend}, who [grinned|beamed|smiled].",
            ),
            "plain": ("The rest of it went to the neighbours.", "On the next day they washed the [tins|bowls] and the spoons."),
            "bad": (
                "There was nothing to eat, and the guests left [angry|annoyed|disappointed].",
                "{hero} threw the {thing} away and felt like a failure.",
            ),
        },
    ),
    "contest": Plot(
        plan="play the {thing} in the [contest|concert|talent show]",
        things=("violin", "flute", "drum", "harp", "trumpet", "piano", "cello", "guitar"),
        places=(
            "at the music school",
            "in the village hall",
            "on the big stage",
            "at the summer fair",
            "in the castle",
            "in the park",
        ),
        first={
            "good": (
                "The [teacher|conductor] [praised|encouraged] them and said that they had real talent.",
                "The first tune went [well|perfectly|beautifully], and the hall [cheered|applauded].",
                "{friend} gave {him} a lucky [coin|charm|ribbon] and a [hug|kiss|smile].",
            ),
            "plain": (
                "They had to wait until their number was called.",
                "{hero} tuned the {thing} and looked for a chair.",
                "Seven others played before them, among them a [boy|girl] with a {thing}.",
            ),
            "bad": (
                "{hero} was so [nervous|scared|afraid] that {his} hands [shook|trembled].",
                "Someone had [damaged|broken|scratched] the {thing} during the night.",
                "A [jealous|mean|rude] player laughed at their [old|ugly] clothes and insulted {friend}.",
            ),
        },
        then={
            "good": (
                "They won the [first prize|gold medal|silver cup], and the crowd [cheered|loved them].",
                "The song was so [beautiful|lovely|brilliant] that people [danced|smiled] in the aisles.",
                "A famous [singer|composer] was impressed and [invited|welcomed] {hero} to [the capital|a grand tour].",
            ),
            "plain": (
                "They came in [fourth|sixth|seventh] of fifteen.",
                "After the last tune they packed the {thing} into its case.",
                "The judges wrote something down and called the next name.",
            ),
            "bad": (
                "A string of bad notes [spoiled|ruined] the tune, and the audience [booed|jeered].",
                "{hero} forgot the melody, stopped in [shame|panic|horror] and ran off the stage.",
                "They lost to a [cheat|bully] who had [lied|cheated] before.",
            ),
        },
        last={
            "good": (
                "The [mayor|headmaster] shook hands with {hero}, and {friend} was [proud|overjoyed|delighted].",
                "From then on everyone [admired|respected] {hero} and {his} [gift|talent].",
            ),
            "plain": ("Then the lights went out, and the hall was closed.", "They took the late tram and were home by ten."),
            "bad": (
                "{hero} [hated|cursed] the {thing} from that day on and never played again.",
                "On the way out nobody spoke to them, and {friend} [wept|cried] in the [dark|rain].",
            ),
        },
    ),
    "garden": Plot(
        plan="plant [some|a row of] {thing} before the summer",
        things=("roses", "tulips", "beans", "pumpkins", "melons", "potatoes", "lilies", "apple trees"),
        places=(
            "behind the cottage",
            "in the school garden",
            "by the chapel",
            "on the hill",
            "in the back yard",
            "next to the pond",
        ),
        first={
            "good": (
                "The soil was [rich|perfect] and soft, and the work was [easy|a pleasure].",
                "{friend} brought a [precious|generous|special] bag of seeds as a [gift|present].",
                "Soon the first green leaves showed, and {hero} was [delighted|thrilled|excited].",
            ),
            "plain": (
                "They dug [four|five|six] rows and marked them with sticks.",
                "{hero} carried the water, and {friend} held the spade.",
                "For [two|three] weeks nothing could be seen but earth.",
            ),
            "bad": (
                "The ground was full of [ugly|sharp] stones, and {friend} broke the spade.",
                "[Greedy|Nasty] crows stole most of the seeds, and {hero} was [furious|upset|angry].",
                "{hero} cut {his} [hand|finger] on a piece of glass, and it bled [badly|terribly].",
            ),
        },
        then={
            "good": (
                "In June the {thing} were the [most beautiful|finest|prettiest] in the whole village.",
                "The {thing} grew so [well|wonderfully] that they won a [prize|ribbon] and much [praise|respect].",
                "People came from far away to [enjoy|admire] the [lovely|splendid] {thing}.",
            ),
            "plain": (
                "By [July|August] the {thing} reached up to the fence.",
                "The {thing} were neither [big|tall] nor small that year.",
                "They tied the {thing} up and pulled out the grass.",
            ),
            "bad": (
                "A [terrible|violent|cruel] storm [destroyed|ruined] the {thing} in one night.",
                "Then a [disease|plague of bugs] killed the {thing}, one after another.",
                "An angry neighbour poured poison over the {thing} out of [hate|spite|envy].",
            ),
        },
        last={
            "good": (
                "They shared the {thing} with [friends|the poor neighbours], and everybody was [grateful|thankful|glad].",
                "{hero} sat among the {thing} every evening, [calm|content|at peace] and happy.",
            ),
            "plain": (
                "In autumn they raked the leaves and locked the shed.",
                "The next year they planted something else there.",
            ),
            "bad": (
                "All their work was [wasted|lost], and {hero} gave up in [despair|misery].",
                "Only [dead|rotten] stalks were left, a [sad|depressing|miserable] sight.",
            ),
        },
    ),
    "boat": Plot(
        plan="sail to the [island|lighthouse] in a {thing}",
        things=(
            "red boat",
            "wooden raft",
            "small canoe",
            "white yacht",
            "fishing boat",
            "green dinghy",
            "rowing boat",
            "houseboat",
        ),
        places=("on the lake", "on the bay", "at the coast", "on the wide river", "off the beach", "on the north sea"),
        first={
            "good": (
                "A [gentle|friendly|fresh] breeze carried them, and dolphins [played|danced] around the bow.",
                "{friend} caught a [splendid|fine|great] fish, and they [laughed|cheered].",
                "The water was [calm|clear] and sparkled like [treasure|gold|diamonds].",
            ),
            "plain": (
                "They rowed for an hour and then changed seats.",
                "{hero} held the [map|rope|oar], and {friend} counted the [gulls|waves].",
                "They passed [two|three] other boats and a buoy.",
            ),
            "bad": (
                "The {thing} began to leak, and {friend} was [frightened|terrified|scared].",
                "{hero} got seasick and [suffered|groaned] all morning.",
                "They lost [an oar|the map|the anchor] and [argued|fought|quarrelled] about it.",
            ),
        },
        then={
            "good": (
                "They landed on a [beautiful|lovely|perfect] beach and had a [wonderful|marvellous] picnic.",
                "On the rocks they found a [pearl|gold ring|silver coin], a real [treasure|wonder].",
                "A [kind|jolly|cheerful] keeper [welcomed|greeted] them and showed them the [bright|great] lamp.",
            ),
            "plain": (
                "They walked once around and read the [sign|tablet].",
                "At [noon|three] they turned the {thing} and went back.",
                "They tied the {thing} to a post and waited for the tide.",
            ),
            "bad": (
                "A [violent|terrible|dreadful] wave hit the {thing}, and it sank.",
                "The fog was so [thick|bad] that they were lost and [afraid|helpless] until morning.",
                "The {thing} hit a rock, and {friend} broke {fhis} [leg|arm] and screamed in [pain|agony].",
            ),
        },
        last={
            "good": (
                "They sailed home under the stars, [singing|laughing] and happy.",
                "It was the best trip of {his} life, and {friend} [agreed|promised to come again].",
            ),
            "plain": ("At the pier {hero} paid for the {thing}.", "They hung the wet [socks|shirts|sails] over a line."),
            "bad": (
                "[Cold|Wet] and [miserable|exhausted], they were [rescued|saved] by a [grim|silent|grumpy] fisherman.",
                "{hero} swore that {he} [hated|feared] the water and would never sail again.",
            ),
        },
    ),
    "market": Plot(
        plan="sell {thing} and buy a [coat|lamp|clock]",
        things=("shirts", "cheeses", "baskets", "candles", "apples", "pots", "pies", "blankets"),
        places=(
            "at the market",
            "in the next town",
            "at the street fair",
            "in the market square",
            "by the town gate",
            "at the docks",
        ),
        first={
            "good": (
                "Their {thing} were [popular|excellent], and the first customer [liked|loved] them.",
                "A [rich|generous|charming] lady paid double and [thanked|complimented] {hero}.",
                "{friend} told [funny|good] jokes, and a [happy|cheerful] crowd gathered.",
            ),
            "plain": (
                "They put up a table between a [butcher|cobbler|barber] and a tailor.",
                "{hero} wrote the prices on a board.",
                "Until [ten|eleven] they sold [two|three|four] of them.",
            ),
            "bad": (
                "Nobody wanted their {thing}, and a [rude|arrogant|nasty] man [mocked|insulted] {friend}.",
                "The cart [broke|crashed] on the way, and half of the {thing} were [ruined|lost].",
                "A [bad|mean] boy threw mud at them, and {hero} was [upset|furious|ashamed].",
            ),
        },
        then={
            "good": (
                "By noon everything was sold, and they had [won|earned] a small fortune,"
                " more than they had [hoped|wished] for.",
                "{hero} found the [perfect|ideal|nicest] one at a [great|fair|good] price.",
                "An old friend [surprised|treated] them with [free|sweet] [cakes|cherries|lemonade] and good news.",
            ),
            "plain": (
                "They swapped the last {thing} for [a hat|some rope|a bag of salt].",
                "{hero} looked at several of them and took the [third|blue|brown] one.",
                "At [two|four] the bell rang, and people went home for their meal.",
            ),
            "bad": (
                "A thief stole {his} purse, and all the money was [lost|gone].",
                "The dealer [cheated|tricked] them with a [fake|worthless|broken] one.",
                "A fight broke out, the table was [smashed|destroyed], and {friend} was [hurt|injured].",
            ),
        },
        last={
            "good": (
                "They rode home [proud|rich] and [glad|satisfied], with [presents|sweets|gifts] for all.",
                "At home everybody was so [pleased|happy] that they [kissed|hugged] them both.",
            ),
            "plain": ("They counted the coins on the way and put them into a jar.", "Before dark they had swept the stall."),
            "bad": (
                "They walked home [hungry|poor] and [sad|bitter], without a penny.",
                "There was trouble at home, for the family had no [food|money] and was in [debt|despair].",
            ),
        },
    ),
    "race": Plot(
        plan="win the {thing}",
        things=(
            "bicycle race",
            "sack race",
            "ski race",
            "swimming race",
            "horse race",
            "relay race",
            "sledge race",
            "running race",
        ),
        places=("at the school", "in the stadium", "near the border", "in the valley", "at the sports club", "across the town"),
        first={
            "good": (
                "{hero} was in [great|excellent|perfect] form and [enjoyed|loved] every minute of the training.",
                "The start went [well|perfectly], and {friend} [cheered|shouted with joy].",
                "Their [friendly|wise|supportive] trainer gave them [good|helpful|valuable] advice.",
            ),
            "plain": (
                "There were [twenty|thirty|forty] others at the start, and {hero} had number [six|eight|nine].",
                "They warmed up and tied their shoes.",
                "At half of the way {hero} was in the [middle|tenth place].",
            ),
            "bad": (
                "A [mean|dishonest|aggressive] rival pushed {hero}, who fell and was [hurt|injured].",
                "{friend} had a [bad|painful|nasty] cramp and [groaned|suffered] with every step.",
                "{hero} was [tired|weak] and [worried|stressed] after a [terrible|horrible] night.",
            ),
        },
        then={
            "good": (
                "In the last [minute|second] {hero} passed everyone and won by a [brilliant|fantastic|superb] finish.",
                "{hero} set a new record and was the [champion|hero|winner] of the day.",
                "{friend} came in second and {hero} first, an [amazing|incredible|outstanding] success.",
            ),
            "plain": (
                "{hero} came in [ninth|twelfth|fifteenth], and {friend} right behind.",
                "Someone wrote down the times and hung up a list.",
                "After the {thing} they drank tea and changed their clothes.",
            ),
            "bad": (
                "{hero} crashed into a [fence|tree] and lost the {thing} and a tooth.",
                "They came in last, and people [laughed at|mocked|ridiculed] them.",
                "The judges [accused|suspected] {friend} of cheating and [banned|punished] them both.",
            ),
        },
        last={
            "good": (
                "{friend} lifted {him} up, and the whole [team|club|town] [celebrated|rejoiced|cheered].",
                "The [trophy|medal] got a place of [honor|honour] above {his} bed.",
            ),
            "plain": ("The shirts went into the wash.", "They rode the bus home and talked about [food|school|the weather]."),
            "bad": (
                "{hero} tore up the number in [anger|rage|shame] and quit the [club|team].",
                "For weeks {hero} was [depressed|gloomy|bitter] and refused to train.",
            ),
        },
    ),
    "letter": Plot(
        plan="bring {thing} to [the old aunt|grandmother|the doctor]",
        things=(
            "a letter",
            "a parcel",
            "some soup",
            "a basket",
            "some medicine",
            "a blanket",
            "a bottle of wine",
            "an old book",
        ),
        places=("beyond the forest", "across the mountain", "on the far shore", "in the big city", "by train", "on foot"),
        first={
            "good": (
                "A [friendly|kind|cheerful] [driver|miller|carter] gave them a free ride and an apple each.",
                "The road was [easy|pretty], and they [sang|laughed] and [joked|played] all the way.",
                "{friend} found [sweet|delicious] [berries|pears], enough for a [lovely|nice] breakfast.",
            ),
            "plain": (
                "They took the [left|right|second] turn after the bridge.",
                "{hero} carried {the} first, and then it was {friend}'s turn.",
                "At a crossroads they asked a [shepherd|soldier|postman] for the way.",
            ),
            "bad": (
                "They took a wrong turn and got lost in a [scary|dark] [swamp|tunnel|gorge].",
                "A [vicious|mad|savage] dog attacked them and bit {friend} in the [leg|hand].",
                "Their shoes were bad, and {hero} [suffered|cried] from the [pain|blisters].",
            ),
        },
        then={
            "good": (
                "The door opened at once, and they were [welcomed|greeted] with [warm|hearty] hugs.",
                "It came just in time and saved a life, and everybody was [grateful|relieved|overjoyed].",
                "The old lady [smiled|laughed] with [joy|delight] and gave them a [precious|beautiful] [ring|gift|watch].",
            ),
            "plain": (
                "Nobody was at home, so they left it with a neighbour.",
                "A maid took it and told them to wait in the hall.",
                "They rang the bell [twice|three times] and went around to the back.",
            ),
            "bad": (
                "They came too late, for the old lady had [died|passed away] in the night, and they [wept|mourned].",
                "[Robbers|Thieves|Bandits] stole {the} and [beat|threatened] them.",
                "{hero} slipped, and {the} fell into the [dirty|cold] river and was [lost|ruined].",
            ),
        },
        last={
            "good": (
                "They sat by the [cosy|warm] fire, ate [good|sweet] cake and felt [loved|blessed|safe].",
                "{hero} was [proud|glad] to have helped and [happily|gladly] promised to come again.",
            ),
            "plain": ("They went back by the same road.", "On Monday a short answer came with the post."),
            "bad": (
                "It was a [sad|lonely|bitter] way home, and neither of them spoke.",
                "{hero} felt so [guilty|ashamed|miserable] that {he} could not sleep.",
            ),
        },
    ),
    "repair": Plot(
        plan="repair {thing} that had stood still for years",
        things=("a clock", "a tractor", "a music box", "a radio", "a windmill", "a steam engine", "a carousel", "a telescope"),
        places=("in the workshop", "in the attic", "in the garage", "at the museum", "behind the station", "in the tower"),
        first={
            "good": (
                "{friend} had a [clever|brilliant|bright] idea and found the [perfect|right] [screw|spring|part].",
                "It was [fun|exciting|a pleasure] to work together, and every piece shone like [treasure|gold].",
                "An old master [liked|trusted] them and gladly shared his [best|special] tools.",
            ),
            "plain": (
                "They took off the lid and laid [nine|twelve|twenty] parts on a sheet.",
                "{hero} made a drawing of the [wheels|wires|pipes].",
                "They oiled the [chain|axle|gears] and waited a while.",
            ),
            "bad": (
                "A [poisonous|dangerous|horrible] smoke came out, and {friend} [choked|panicked].",
                "{hero} broke the [main|last] [spring|wheel|wire] and [cursed|swore] loudly.",
                "The parts were [damaged|useless|dirty], and they [argued|quarrelled] about every one.",
            ),
        },
        then={
            "good": (
                "With a [merry|happy|cheerful] hum it came to life, as [good|beautiful] as on its first day.",
                "It worked [perfectly|brilliantly|splendidly], and the two of them danced with [joy|delight].",
                "Inside they found [precious|valuable] [jewels|coins|pearls] and were [rich|thrilled].",
            ),
            "plain": (
                "It moved a little, stopped, and moved again.",
                "They closed the lid and wrote the date on it.",
                "At [six|seven|eight] they put the tools back into the box.",
            ),
            "bad": (
                "It exploded with a [terrible|horrible|dreadful] bang and injured {friend}.",
                "A fire broke out and [destroyed|ruined] everything they had [made|saved].",
                "It fell on {his} foot and was [smashed|wrecked] for ever.",
            ),
        },
        last={
            "good": (
                "The whole street came to [admire|enjoy] it, and they were [proud|heroes] for a day.",
                "The owner was [delighted|thankful|amazed] and paid them a [generous|handsome] sum.",
            ),
            "plain": ("They covered it with a sheet and went to supper.", "Since then it stands by the door."),
            "bad": (
                "The owner was [furious|outraged] and called them stupid [fools|idiots].",
                "They had to pay for the damage, which was a [disaster|heavy blow].",
            ),
        },
    ),
    "camp": Plot(
        plan="spend a night in a {thing}",
        things=("tent", "tree house", "mountain hut", "cave", "hay barn", "snow hut", "ruined tower", "caravan"),
        places=(
            "in the forest",
            "on the moor",
            "high in the mountains",
            "at the edge of the desert",
            "by a waterfall",
            "in the wild",
        ),
        first={
            "good": (
                "They lit a [bright|cosy|warm] fire and told each other [funny|good|happy] stories.",
                "A [cute|sweet|playful] young [fox|deer|owl] came close and was not [afraid|scared].",
                "{friend} had packed [delicious|wonderful] [sausages|pancakes|buns], and they [enjoyed|loved] them.",
            ),
            "plain": (
                "They gathered [wood|moss|branches] and filled the kettle.",
                "{hero} rolled out the blankets while {friend} looked at the map.",
                "At nine they put out the lamp and listened.",
            ),
            "bad": (
                "[Nasty|Horrible|Evil] insects bit them, and {friend} [complained|cried|moaned].",
                "They had forgotten the food and were [hungry|miserable] and [angry|grumpy].",
                "Something howled in the [dark|distance], and {hero} was [terrified|scared|frightened].",
            ),
        },
        then={
            "good": (
                "A thousand stars came out, more [beautiful|wonderful|glorious] than anything they had seen.",
                "They slept [well|peacefully|safely] and woke to a [lovely|magnificent|perfect] sunrise.",
                "[Friendly|Jolly|Kind] hikers joined them, and they sang and [danced|laughed] till late.",
            ),
            "plain": (
                "In the night it was quiet, and [an owl|a fox|a train] could be heard.",
                "They woke at [five|six], rolled up the blankets and drank water.",
                "{friend} slept on the left and {hero} on the right side.",
            ),
            "bad": (
                "The {thing} [collapsed|was flooded], and they fled in [terror|panic|horror].",
                "A [hungry|savage|vicious] wolf attacked them, and {hero} was [wounded|hurt].",
                "By midnight {friend} had a [high|bad|terrible] fever and [cried|moaned] in [pain|agony].",
            ),
        },
        last={
            "good": (
                "They were [happy|free] and [strong|relaxed], and [wished|hoped] that it would never end.",
                "It was a [special|magical|lovely] night, and it made them the best of friends.",
            ),
            "plain": ("On the way down they crossed [two|three] streams.", "They left the key under a stone."),
            "bad": (
                "They came home [ill|sick|injured] and [exhausted|hopeless].",
                "For a long time {hero} had [nightmares|bad dreams] and feared the [dark|night].",
            ),
        },
    ),
    "painting": Plot(
        plan="paint {thing} for the [new school|gallery|town hall]",
        things=(
            "a ship",
            "the harbour",
            "a lion",
            "the old bridge",
            "a portrait",
            "a field of wheat",
            "the winter sea",
            "a king",
        ),
        places=(
            "in the studio",
            "at the window",
            "on the roof terrace",
            "in the art room",
            "under the oak",
            "in a cold cellar",
        ),
        first={
            "good": (
                "The colours were [bright|gorgeous|lovely], and the brush moved with [ease|joy|grace].",
                "{friend} [praised|admired] the first sketch and [smiled|beamed].",
                "A [wise|famous|kind] painter stopped and gave {him} [helpful|good] advice.",
            ),
            "plain": (
                "{hero} began with the [sky|shadows|outline] and mixed some grey.",
                "{friend} washed the brushes and opened a window.",
                "On the first day only one [corner|side] was finished.",
            ),
            "bad": (
                "{friend} knocked over the paint and [ruined|spoiled] the sketch.",
                "The light was bad, and {hero} was [frustrated|unhappy|desperate] and threw the brush away.",
                "A [harsh|cruel|arrogant] teacher called it [ugly|stupid|worthless].",
            ),
        },
        then={
            "good": (
                "The picture was a [masterpiece|great success], and people [loved|adored] it.",
                "A [rich|generous] collector bought it and paid a [splendid|wonderful] price.",
                "It won the [first prize|grand prize], and {hero} was [praised|honoured] in the newspaper.",
            ),
            "plain": (
                "They hung the picture between a [map|mirror] and a door.",
                "It took until [March|May|Friday], and then it had to dry.",
                "Some looked at it, and some walked past.",
            ),
            "bad": (
                "Somebody [slashed|destroyed|stole] the picture on the night before the show.",
                "The critics [hated|despised] it and wrote that it was [terrible|awful|a disgrace].",
                "Rain came through the roof and [ruined|destroyed] it before anyone had seen it.",
            ),
        },
        last={
            "good": (
                "Since that day {hero} paints with [confidence|passion|joy] every morning.",
                "{friend} gave a [great|lovely|happy] party, and everyone [congratulated|toasted] {hero}.",
            ),
            "plain": ("The easel was put back into the corner.", "{hero} wrote {his} name at the bottom, in small letters."),
            "bad": (
                "{hero} burned the rest and [wept|cried] with [anger|grief|shame].",
                "{hero} lost all [courage|hope], and the studio was closed.",
            ),
        },
    ),
    "visit": Plot(
        plan="see {thing} for the first time",
        things=(
            "the circus",
            "the opera",
            "the ballet",
            "a parade",
            "an air show",
            "a magic show",
            "a puppet play",
            "a famous clown",
        ),
        places=(
            "on a school trip",
            "on a holiday",
            "with the class",
            "on a long weekend",
            "in the capital",
            "in a foreign country",
        ),
        first={
            "good": (
                "They got [free|wonderful|excellent] seats in the front and were [excited|thrilled].",
                "A [charming|funny|pleasant] guide told them [amusing|fascinating] stories.",
                "{friend} bought [sweet|delicious] [nuts|ices|waffles] and shared them.",
            ),
            "plain": (
                "They stood in a long line and paid at the counter.",
                "{hero} read the [leaflet|guide] while {friend} looked for the entrance.",
                "The bus took [two|three|four] hours with one stop.",
            ),
            "bad": (
                "It was crowded and loud, and a [rude|violent|drunk] man [shoved|hit] {friend}.",
                "{hero} lost the tickets, and they [argued|quarrelled] [bitterly|terribly].",
                "The food was [disgusting|rotten|horrible], and {friend} got sick.",
            ),
        },
        then={
            "good": (
                "What they saw was so [beautiful|amazing|magnificent] that they [gasped|cheered] with [joy|delight].",
                "{hero} was [invited|chosen] to come [behind the curtain|up close], and it was [great|pure] fun.",
                "They made [good|wonderful] friends with a [cheerful|lovely] family from the [north|south].",
            ),
            "plain": (
                "They walked from one end to the other and took [six|ten] pictures.",
                "At [three|four] they sat down and had some tea.",
                "{hero} bought a postcard, and {friend} a [pencil|map].",
            ),
            "bad": (
                "An alarm went off, people [screamed|panicked], and {friend} was [trampled|hurt|injured].",
                "It was closed after a [fatal|tragic|terrible] accident, and they were [disappointed|shocked].",
                "A pickpocket stole the money, and they were [stranded|lost] and [helpless|afraid].",
            ),
        },
        last={
            "good": (
                "It was a [perfect|wonderful|fantastic] day, and {hero} [treasured|loved] the memory for ever.",
                "All the way home they [laughed|sang] and [hoped|wished] to come again.",
            ),
            "plain": ("The bus left at [five|six] from the same place.", "At home they put the pictures into a drawer."),
            "bad": (
                "The trip was a [disaster|failure|nightmare], and they [regretted|hated] it.",
                "{hero} came home [sad|upset] and did not want to talk about the [awful|horrible|wretched] day.",
            ),
        },
    ),
}
