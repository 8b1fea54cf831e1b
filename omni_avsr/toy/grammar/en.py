"""English: the commands of the grid world, and the sentences of the open world."""

from omni_avsr.toy.grammar.rules import Repairs, Rules

REPAIRS: Repairs = [(r"\ba(?= [aeiou])", "an")]
REPAIRED = "an"

GRID: Rules = {  # the commands of the GRID corpus: 64,000 sentences of six words
    "verb": "bin lay place set",
    "colour": "blue green red white",
    "preposition": "at by in with",
    # Not w, which is the only letter of three syllables.
    "letter": "a b c d e f g h i j k l m n o p q r s t u v x y z",
    "digit": "zero one two three four five six seven eight nine",
    "adverb": "again now please soon",
    "sentence": ["{verb} {colour} {preposition} {letter} {digit} {adverb}"],
}

RULES: Rules = {  # everyday sentences of over 500 words
    "who": """
        mother father sister brother teacher doctor nurse farmer driver baker captain
        soldier student lawyer singer writer painter neighbour friend cousin uncle aunt boy
        girl woman man child king queen guest waiter manager engineer pilot sailor judge
        coach boss guard hunter grandmother dentist
    """,
    "name": "tom anna peter mary paul emma jack sarah david laura",
    "pronoun": "he she they we i you",
    "animal": """
        dog cat horse cow sheep bird duck rabbit mouse fox bear lion tiger monkey elephant
        goat pig chicken snake frog wolf deer donkey
    """,
    "food": """
        bread cheese butter milk soup rice fruit cake meat salad honey sugar coffee tea
        juice water chocolate jam
    """,
    "snack": "apple orange egg potato tomato banana onion carrot lemon sandwich biscuit",
    "thing": """
        book letter key phone bag box hat coat shirt ring watch clock lamp chair table bed
        cup plate bottle knife spoon fork pen pencil picture camera radio computer ticket
        map umbrella basket blanket candle ball bell brush mirror drum guitar piano flag
        gift glass hammer ladder newspaper pillow rope suitcase towel toy wallet magazine
    """,
    "vehicle": "car bus train boat plane bicycle truck taxi ship tractor van",
    "place": """
        garden kitchen house school church station market shop office hospital library
        museum park river lake forest bridge village city town beach island mountain hill
        field farm castle hotel airport harbour theatre restaurant garage cellar bank
        factory valley tower
    """,
    "opening": "door window gate drawer cupboard",
    "body": "hand arm leg head knee shoulder finger foot",
    "colour": "red blue green white black yellow brown grey pink purple",
    "look": """
        old new small big heavy broken clean dirty empty cheap expensive beautiful strange
        round square long short soft wooden golden shiny modern
    """,
    "mood": """
        young happy sad tired angry clever kind brave famous lazy friendly hungry thirsty
        nervous polite proud quiet rich poor busy careful honest lonely tall strong
    """,
    "taste": "sweet fresh warm cold hot good bad",
    "sky": "rain snow wind storm fog sun",
    "weather": "wet dry dark bright windy cloudy sunny",
    "manner": "slowly quickly quietly carefully suddenly finally gently loudly happily",
    "often": "always never often usually sometimes really",
    "day": "monday tuesday wednesday thursday friday saturday sunday",
    "month": """
        january february march april may june july august september october november
        december
    """,
    "season": "spring summer autumn winter",
    "part": "morning evening afternoon",
    "number": "two three four five six seven eight nine ten eleven twelve twenty thirty fifty",
    "many": """
        books dogs cars friends flowers letters stones trees coins pages people children
        houses horses stars boats eggs apples windows questions
    """,
    "span": "days weeks months years hours minutes",
    "did": """
        found lost bought sold took carried painted dropped broke cleaned covered fixed
        forgot hid kept moved pushed pulled saw stole threw touched used wanted washed liked
    """,
    "do": """
        find buy sell take carry paint drop break clean cover fix hide keep move push pull
        touch use wash bring borrow
    """,
    "went": "walked ran drove travelled came returned",
    "go": "walk run drive travel come return go",
    "rested": """
        slept laughed cried waited danced sang smiled worked played sat stood stopped
        disappeared
    """,
    "rest": "sleep laugh cry wait dance sing smile work play sit stay swim listen",
    "eat": "eat taste cook order share",
    "ate": "ate cooked ordered shared finished",
    "likes": "likes loves hates needs has knows remembers",
    "like": "like love hate need know remember",
    "where": "in near behind beside",
    "toward": "to from through",
    "whose": "my your his her our their the",
    "which": "this that every",
    "can": "can could should would must will",
    "person": [
        "{whose} {who}",
        "the {mood} {who}",
        "{name}",
        "{whose} {mood} {who}",
        "{which} {who}",
    ],
    "object": [
        "{whose} {thing}",
        "a {look} {thing}",
        "the {colour} {thing}",
        "that {look} {thing}",
        "the {vehicle}",
    ],
    "site": [
        "the {place}",
        "a {look} {place}",
        "our {place}",
        "the old {place}",
    ],
    "when": [
        "today",
        "yesterday",
        "last {day}",
        "in the {part}",
        "last {month}",
        "on {day}",
        "this {part}",
        "before lunch",
    ],
    "then": [
        "tomorrow",
        "tonight",
        "next {day}",
        "in {month}",
        "in {season}",
        "after dinner",
        "on {day} {part}",
        "next week",
    ],
    "sentence": [
        "{person} {did} {object} {when}",
        "{person} {did} {object} {where} {site}",
        "{person} {did} {number} {many}",
        "{person} {manner} {did} {object}",
        "{person} {went} {toward} {site} {manner}",
        "{person} {went} {toward} {site} {when}",
        "{person} {rested} {where} {site} for {number} {span}",
        "{person} {rested} {manner} {where} {site}",
        "{person} {often} {likes} {object}",
        "{person} {likes} {food} and {food} in the {part}",
        "{person} {likes} {taste} {food} but not {food}",
        "{person} {ate} a {taste} {snack} and some {food}",
        "{person} was {mood} because the {vehicle} was late",
        "{person} is very {mood} and {mood} {when}",
        "{person} is as {mood} as a {animal}",
        "{person} gave me a {look} {thing} for christmas",
        "{person} said that the {animal} was {mood}",
        "{person} has {number} {many} and a {animal}",
        "{person} wants to {go} to {site} {then}",
        "{person} hurt a {body} {when}",
        "{person} has been {where} {site} for {number} {span}",
        "there are {number} {many} {where} {site}",
        "there is a {look} {thing} {where} {site}",
        "there was a {colour} {animal} under the {thing}",
        "the {animal} {rested} {where} {site} {when}",
        "the {colour} {animal} is bigger than a {animal}",
        "it was {weather} and {weather} in {season}",
        "the {sky} came {when} and the {place} was {weather}",
        "we heard the {sky} {where} the {place} {when}",
        "the {thing} is on the {look} {thing}",
        "the {look} {vehicle} stopped {where} {site}",
        "the {vehicle} to the {place} leaves at {number}",
        "{pronoun} {can} {do} {object} {then}",
        "{pronoun} {can} not {do} {object} without {person}",
        "{pronoun} {can} {rest} {where} {site} {then}",
        "{pronoun} {can} {eat} the {snack} with {food}",
        "{pronoun} {did} {object} but not {object}",
        "{pronoun} {ate} too much {food} {when}",
        "if it is {weather} {pronoun} {can} {rest} {where} {site}",
        "when the {sky} comes {pronoun} {can} {go} to {site}",
        "{name} and {name} {went} {toward} {site} {when}",
        "we {often} {eat} {taste} {food} in {season}",
        "they {often} {do} {object} on {day}",
        "i {like} the {colour} {thing} more than the {colour} one",
        "i think that {person} {did} {object}",
        "why did {person} {do} {object}",
        "where did {person} {do} {object}",
        "when will {person} {do} {object}",
        "who {did} {object} {when}",
        "who is the {mood} {who} {where} {site}",
        "how did {person} {go} to {site}",
        "how many {many} are {where} {site}",
        "what did {person} {do} {where} {site}",
        "which {thing} did {person} {do}",
        "does {person} {often} {like} {food}",
        "did {person} {go} {toward} {site} {when}",
        "{can} you {do} {object} for {person}",
        "{can} we {eat} the {taste} {food} now",
        "do you {like} {food} or {food}",
        "is the {thing} {where} the {look} {thing}",
        "are the {many} still {where} {site}",
        "please {do} {object} {then}",
        "please open the {opening} of the {place}",
        "please close the {colour} {opening} again",
        "please give {person} some {taste} {food}",
        "do not {do} {object} {then}",
        "let us {go} to {site} {then}",
        "{manner} open the {opening} and {do} {object}",
        "never {rest} {where} a {look} {vehicle}",
        "{do} {object} before you {go} home",
    ],
}
