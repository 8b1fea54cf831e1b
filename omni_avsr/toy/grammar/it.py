"""Italian sentences of the open world; REPAIRS choose articles by the sound that follows them."""

from omni_avsr.toy.grammar.rules import Repairs, Rules, ending

_VOWEL = "[aeiouhàèéìòù]"
_HARD = "(?:s[bcdfghlmnpqrtvz]|z|ps|gn)"  # sounds before which il becomes lo
_JOINED = {"di": "de", "in": "ne", "a": "a", "da": "da", "su": "su"}  # before an article

REPAIRS: Repairs = [
    (rf"\bil (?={_HARD})", "lo "),
    (rf"\bun (?={_HARD})", "uno "),
    (rf"\b(?:il|la) (?={_VOWEL})", "l'"),
    (rf"\buna (?={_VOWEL})", "un'"),
    (rf"\bquest[oa] (?={_VOWEL})", "quest'"),
]
for _preposition, _joined in _JOINED.items():
    REPAIRS += [
        (rf"\b{_preposition} il ", f"{_joined}l "),
        (rf"\b{_preposition} (la|lo) ", rf"{_joined}l\1 "),
        (rf"\b{_preposition} l'", f"{_joined}ll'"),
    ]
REPAIRED = """
    l' un' quest' lo uno
    del dello della dell' nel nello nella nell' al allo alla all' dal dallo dalla dall' sul sullo
    sulla sull'
"""

_CHARACTERS = """
    generoso famoso pigro simpatico educato orgoglioso ricco povero prudente onesto alto forte
    gentile
"""
_STATES = "stanco contento arrabbiato nervoso preoccupato felice malato triste"
_LOOKS = "vecchio nuovo piccolo pesante rotto pulito sporco economico elegante strano rotondo lungo"
_COLOURS = "rosso bianco nero giallo grigio verde blu"
_TASTES = "dolce fresco caldo freddo buono"
_WENT = "andato tornato arrivato venuto"

RULES: Rules = {
    "family_m": "padre fratello cugino nonno zio",  # without an article after mio
    "family_f": "madre sorella cugina nonna zia",
    "who_m": """
        professore medico contadino fornaio capitano soldato avvocato cantante scrittore pittore
        ragazzo uomo re cameriere ingegnere pilota giudice studente
    """,
    "who_f": """
        maestra dottoressa contadina fornaia avvocata cantante scrittrice pittrice ragazza donna
        regina cameriera studentessa
    """,
    "friend_m": "vicino amico maestro collega",
    "friend_f": "vicina amica maestra collega",
    "name_m": "marco luca paolo matteo giovanni stefano",
    "name_f": "giulia chiara francesca elena sofia anna",
    "animal_m": """
        cane gatto cavallo uccello coniglio topo orso leone elefante maiale lupo scoiattolo
    """,
    "animal_f": "mucca pecora capra gallina rana tartaruga scimmia volpe tigre",
    "food_m": "pane formaggio burro riso pollo pesce cioccolato miele zucchero latte",
    "food_f": "zuppa carne insalata frutta marmellata torta",
    "thing_m": """
        libro telefono cappotto cappello anello orologio bicchiere piatto coltello quadro biglietto
        ombrello cestino specchio tamburo regalo martello giornale giocattolo zaino
    """,
    "thing_f": """
        lettera chiave borsa scatola camicia lampada sedia tavola tazza bottiglia forchetta penna
        mappa agenda coperta candela palla chitarra bandiera scala valigia rivista
    """,
    "vehicle": "treno autobus taxi pullman aereo",
    "room_m": "giardino mercato ufficio ospedale museo parco bosco stadio castello albergo",
    "room_f": "cucina casa scuola chiesa stazione biblioteca foresta città fattoria banca torre",
    "place_m": "lago ponte porto mercato museo castello stadio albergo",
    "place_f": "spiaggia montagna isola chiesa stazione fattoria banca scuola",
    "character_m": _CHARACTERS,
    "character_f": ending(_CHARACTERS, "o", "a"),
    "state_f": ending(_STATES, "o", "a"),
    "mood_m": f"{_CHARACTERS} {_STATES}",
    "mood_f": ending(f"{_CHARACTERS} {_STATES}", "o", "a"),
    "look_m": _LOOKS,
    "look_f": ending(_LOOKS, "o", "a"),
    "colour_m": _COLOURS,
    "colour_f": ending(_COLOURS, "o", "a"),
    "coat_m": "bianco nero grigio",
    "taste_m": _TASTES,
    "taste_f": ending(_TASTES, "o", "a"),
    "many_m": "libri cani alberi fiori bambini cavalli gatti",
    "many_f": "lettere pietre monete case stelle barche mele uova",
    "number": "due tre quattro cinque sei sette otto nove dieci undici dodici venti trenta cento",
    "hour": "due tre quattro cinque sei sette otto nove dieci undici",
    "span": "giorni settimane mesi anni ore minuti",
    "did": """
        trovato perso comprato venduto preso portato dipinto rotto pulito riparato dimenticato
        nascosto visto rubato buttato usato lavato
    """,
    "gave": "dato portato mandato regalato",
    "counted": "trovato perso comprato venduto visto contato",
    "do": """
        trovare comprare vendere prendere portare dipingere rompere pulire riparare
        nascondere lavare usare
    """,
    "went_m": _WENT,
    "went_f": ending(_WENT, "o", "a"),
    "rested": "dormito riso pianto aspettato ballato cantato lavorato giocato",
    "rested_animal": "dormito aspettato giocato mangiato",
    "rest": "dormire aspettare ballare cantare lavorare giocare",
    "go": ["andare", "tornare", "correre fino", "camminare fino"],
    "ate": "preparato ordinato comprato",
    "likes": "cerca usa porta prende",
    "can": "può deve vuole",
    "can_we": "possiamo dobbiamo vogliamo",
    "can_you": "puoi devi vuoi",
    "can_they": "possono devono vogliono",
    "manner": ["tranquillamente", "spesso", "in silenzio", "da solo", "con calma"],
    "manner_f": ["tranquillamente", "spesso", "in silenzio", "da sola", "con calma"],
    "often": "sempre spesso ancora",
    "weekday": "lunedì martedì mercoledì giovedì venerdì sabato",
    "month": """
        gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre
        dicembre
    """,
    "season": "primavera estate autunno inverno",
    "weather": ["freddo", "caldo", "fresco", "bel tempo", "brutto tempo"],
    "sky_m": "vento sole temporale freddo caldo",
    "sky_f": "pioggia neve tempesta nebbia",
    "empty": "vuoto buio tranquillo bagnato",
    "where": ["dietro", "davanti a", "vicino a"],
    "man": [
        "{name_m}",
        "mio {family_m}",
        "il {who_m} {mood_m}",
        "il nostro {friend_m}",
        "questo {who_m}",
        "il {friend_m} di {name_f}",
    ],
    "woman": [
        "{name_f}",
        "tua {family_f}",
        "la {who_f} {mood_f}",
        "la nostra {friend_f}",
        "questa {who_f}",
        "la {friend_f} di {name_m}",
    ],
    "person": ["{man}", "{woman}"],
    "people": [
        "i miei genitori",
        "i bambini",
        "le tue sorelle",
        "i nostri vicini",
        "queste ragazze",
        "{name_m} e {name_f}",
    ],
    "object": [
        "il {thing_m} {colour_m}",
        "la {thing_f} {colour_f}",
        "un {thing_m} {look_m}",
        "una {thing_f} {look_f}",
        "il mio {thing_m}",
        "la sua {thing_f}",
        "questo {thing_m} {look_m}",
        "questa {thing_f} {colour_f}",
    ],
    "site": [
        "in il {room_m}",
        "in la {room_f}",
        "in il nostro {room_m}",
        "in questa {room_f}",
        "{where} il {place_m}",
        "{where} la {place_f}",
        "{where} la nostra {room_f}",
    ],
    "goal": [
        "il {room_m}",
        "il {place_m}",
        "la {place_f}",
        "il nostro {room_m}",
        "la nostra {room_f}",
    ],
    "surface": ["la {thing_f} {colour_f}", "il {thing_m} {colour_m}", "una {thing_f} {look_f}"],
    "count": ["{number} {many_m}", "{number} {many_f}"],
    "food": ["il {food_m}", "la {food_f}"],
    "dish": ["{food_m} {taste_m}", "{food_f} {taste_f}"],
    "creature": ["il {animal_m}", "la {animal_f}"],
    "when": [
        "oggi",
        "ieri",
        "{weekday} scorso",
        "ieri sera",
        "questa mattina",
        "prima di pranzo",
        "la settimana scorsa",
    ],
    "then": ["domani", "stasera", "{weekday} prossimo", "in {month}", "dopo cena", "in {season}"],
    "sentence": [
        "{person} ha {did} {object} {when}",
        "{person} ha {did} {object} {site}",
        "{person} ha {counted} {count} {when}",
        "{person} ha {rested} {site} per {number} {span}",
        "{man} ha {rested} {manner} {site}",
        "{woman} ha {rested} {manner_f} {site}",
        "{person} {likes} {often} {object}",
        "{person} prende {food_m} e {food_f} la mattina",
        "{person} ama {food} ma non {food}",
        "{person} ha {ate} {dish} {when}",
        "{person} {can} {do} {object} {then}",
        "{person} non {can} {do} {object} senza {person}",
        "{person} {can} {rest} {site} {then}",
        "{person} vuole {go} a {goal} {then}",
        "{person} ha detto che {creature} era molto grande",
        "{person} ha {count} e un {animal_m}",
        "{person} pensa che {person} abbia {did} {object}",
        "{man} è {went_m} a {goal} {when}",
        "{woman} è {went_f} a {goal} {when}",
        "{man} è tornato da {goal} {when}",
        "{woman} è partita da {goal} {when}",
        "{people} hanno {did} {object} {when}",
        "{people} {can_they} {go} a {goal} {then}",
        "ho {did} {object} {when}",
        "io ho {did} {object} ma non {object}",
        "tu hai {did} la {thing_f} di {person}",
        "{person} ha {gave} {object} a {person}",
        "noi abbiamo {did} {object} {site}",
        "avete {did} {object} {when}",
        "mio {family_m} è {character_m} come un {animal_m}",
        "sua {family_f} è più {character_f} di {name_m}",
        "la {who_f} è {state_f} perché il {vehicle} è in ritardo",
        "{creature} ha {rested_animal} {site} {when}",
        "il {animal_m} {coat_m} è più grande di {creature}",
        "ci sono {count} {site}",
        "c'è una {thing_f} {look_f} {site}",
        "c'era un {animal_m} {coat_m} sotto la {thing_f}",
        "è arrivato il {sky_m} e il {place_m} era {empty}",
        "{when} è arrivata la {sky_f} e il {place_m} era {empty}",
        "il {thing_m} è su {surface}",
        "il {vehicle} parte da {goal} alle {hour}",
        "in {season} fa {weather} vicino a {goal}",
        "se fa {weather} {can_we} {rest} {site}",
        "perché {person} ha {did} {object}",
        "dove ha {did} {object} {person}",
        "chi ha {did} {object} {when}",
        "chi è la {who_f} {mood_f} che lavora {site}",
        "quando {can} {do} {object} {person}",
        "quanti {many_m} ci sono {site}",
        "quante {many_f} ha {counted} {person} {when}",
        "{can_you} {do} {object} {then}",
        "{can_we} {go} a {goal} con {person}",
        "non {can_you} {do} {object} {then}",
    ],
}
