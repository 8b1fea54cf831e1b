"""French sentences of the open world; REPAIRS elide and contract neighbouring words."""

from omni_avsr.toy.grammar.rules import Repairs, Rules, ending

_VOWEL = "[aeiouyhéèêâîôœ]"  # h too, as no noun or name of these rules has an aspirated one

REPAIRS: Repairs = [
    (rf"\b(l)[ea] (?={_VOWEL})", r"\1'"),
    (rf"\b(d|n|qu)e (?={_VOWEL})", r"\1'"),
    (rf"\b(m|t|s)a (?={_VOWEL})", r"\1on "),
    (rf"\bce (?={_VOWEL})", "cet "),
    (r"\bde le ", "du "),
    (r"\bà le ", "au "),
]
REPAIRED = "l' d' n' qu' son cet du au"

_STATES = "fatigué content occupé énervé prudent poli"
_PLAIN = "triste célèbre honnête malade riche pauvre tranquille"  # of either gender
_LOOKS = "lourd cassé vide étrange rond carré moderne magnifique propre sale"
_WENT = "allé retourné arrivé venu resté"

RULES: Rules = {
    "family_m": "père frère cousin oncle voisin ami",
    "family_f": "mère sœur cousine tante voisine amie",
    "who_m": """
        professeur médecin fermier boulanger capitaine soldat avocat chanteur écrivain peintre
        garçon roi serveur ingénieur pilote juge dentiste homme
    """,
    "who_f": """
        maîtresse infirmière fermière boulangère avocate chanteuse fille femme reine serveuse
        pilote juge dentiste
    """,
    "name_m": "pierre louis paul julien antoine nicolas",
    "name_f": "marie claire sophie camille juliette élise",
    "animal_m": "chien chat cheval mouton oiseau lapin renard ours lion singe cochon loup canard",
    "animal_f": "vache poule souris chèvre grenouille tortue girafe",
    "food_m": "pain fromage beurre riz poulet poisson chocolat café thé miel",
    "food_f": "soupe viande salade confiture crème",
    "thing_m": """
        livre téléphone manteau chapeau verre couteau crayon tableau billet panier miroir tambour
        drapeau cadeau marteau journal jouet sac parapluie
    """,
    "thing_f": """
        lettre clé boîte chemise bague montre lampe chaise table tasse assiette bouteille cuillère
        fourchette carte couverture bougie balle guitare échelle valise serviette
    """,
    "vehicle": "train bus bateau taxi camion",
    "room_m": "jardin bureau musée parc village château restaurant garage hôpital",
    "room_f": "cuisine maison école église gare forêt ferme banque",
    "place_m": "lac pont port marché musée château restaurant hôpital",
    "place_f": "rivière plage gare maison école église ferme banque tour",
    "mood_m": f"{_STATES} {_PLAIN} heureux gentil paresseux nerveux fier",
    "mood_f": f"{ending(_STATES, '', 'e')} {_PLAIN} heureuse gentille paresseuse nerveuse fière",
    "look_m": _LOOKS,
    "look_f": "lourde cassée vide étrange ronde carrée moderne magnifique propre sale",
    "first_m": "grand petit vieux beau nouveau",  # before the noun
    "first_f": "grande petite vieille belle nouvelle",
    "colour_m": "rouge bleu vert blanc noir jaune gris rose",
    "colour_f": "rouge bleue verte blanche noire jaune grise rose",
    "coat_m": "blanc noir gris",
    "coat_f": "blanche noire grise",
    "taste_m": "sucré frais chaud froid",
    "taste_f": "sucrée fraîche chaude froide",
    "many": "livres chiens arbres fleurs lettres pierres pièces enfants bateaux œufs pommes",
    "number": "deux trois quatre cinq six sept huit neuf dix onze douze vingt trente cent",
    "hour": "deux trois quatre cinq six sept huit neuf dix onze",
    "span": "jours semaines mois ans heures minutes",
    "did": """
        trouvé perdu acheté vendu pris porté peint cassé nettoyé réparé oublié caché vu volé jeté
        utilisé lavé
    """,
    "counted": "trouvé perdu acheté vendu vu compté",
    "do": """
        trouver acheter vendre prendre porter peindre casser nettoyer réparer cacher laver
        utiliser
    """,
    "went_m": _WENT,
    "went_f": ending(_WENT, "", "e"),
    "rested": "dormi ri pleuré attendu dansé chanté travaillé joué",
    "rested_animal": "dormi attendu joué disparu mangé",
    "rest": "dormir attendre danser chanter travailler jouer",
    "go": "retourner rester jouer attendre",
    "ate": "mangé préparé commandé acheté",
    "likes": "aime déteste cherche garde utilise",
    "can": "peut doit veut",
    "can_we": "pouvons devons voulons",
    "can_you": "peux dois veux",
    "manner": "lentement doucement calmement souvent longtemps",
    "often": "toujours souvent parfois",
    "day": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "month": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "season": ["au printemps", "en été", "en automne", "en hiver"],
    "weather": "humide sec sombre froid chaud doux",
    "empty": "vide sombre humide calme",
    "sky": ["la pluie", "la neige", "le vent", "la tempête", "le brouillard", "le froid"],
    "where": ["derrière", "devant", "près de"],
    "man": [
        "{name_m}",
        "mon {family_m}",
        "le {who_m} {mood_m}",
        "notre {family_m}",
        "ce {who_m}",
        "le {family_m} de {name_f}",
    ],
    "woman": [
        "{name_f}",
        "ma {family_f}",
        "la {who_f} {mood_f}",
        "leur {family_f}",
        "cette {who_f}",
        "la {family_f} de {name_m}",
    ],
    "person": ["{man}", "{woman}"],
    "people": [
        "mes parents",
        "les enfants",
        "tes sœurs",
        "nos voisins",
        "ces filles",
        "{name_m} et {name_f}",
    ],
    "the_object": [
        "le {thing_m} {colour_m}",
        "la {thing_f} {colour_f}",
        "mon {thing_m}",
        "sa {thing_f}",
        "ce {first_m} {thing_m}",
        "cette {first_f} {thing_f}",
    ],
    "object": [
        "{the_object}",
        "un {thing_m} {look_m}",
        "une {thing_f} {look_f}",
        "un {first_m} {thing_m}",
        "une {first_f} {thing_f}",
    ],
    "site": [
        "dans le {room_m}",
        "dans la {room_f}",
        "dans notre {room_m}",
        "dans cette {room_f}",
        "{where} le {place_m}",
        "{where} la {place_f}",
        "{where} la {first_f} {place_f}",
    ],
    "goal": ["le {room_m}", "la {room_f}", "le {place_m}", "la {place_f}"],
    "food": ["le {food_m}", "la {food_f}"],
    "some": ["du {food_m}", "de la {food_f}"],
    "dish": ["du {food_m} {taste_m}", "de la {food_f} {taste_f}"],
    "creature": ["le {animal_m}", "la {animal_f}"],
    "when": [
        "hier",
        "{day} dernier",
        "ce matin",
        "hier soir",
        "avant midi",
        "{day} matin",
        "la semaine dernière",
    ],
    "then": ["demain", "ce soir", "{day} prochain", "en {month}", "après le dîner", "{season}"],
    "sentence": [
        "{person} a {did} {object} {when}",
        "{person} a {did} {object} {site}",
        "{person} a {counted} {number} {many} {when}",
        "{person} a {rested} {site} pendant {number} {span}",
        "{person} a {rested} {manner} {site}",
        "{person} {likes} {often} {the_object}",
        "{person} mange {some} et {some} le matin",
        "{person} aime {food} mais pas {food}",
        "{person} a {ate} {dish} {when}",
        "{person} {can} {do} {object} {then}",
        "{person} ne {can} pas {do} {the_object} sans {person}",
        "{person} {can} {rest} {site} {then}",
        "{person} va {go} {site} {then}",
        "{person} va à {goal} {then}",
        "{person} a dit que {creature} était malade",
        "{person} a {number} {many} et un {animal_m}",
        "{person} pense que {person} a {did} {object}",
        "{person} ne aime pas {the_object}",
        "{man} est {went_m} {site} {when}",
        "{woman} est {went_f} {site} {when}",
        "{man} est parti pour {goal} {when}",
        "{woman} est sortie de {goal} {when}",
        "{people} ont {did} {object} {when}",
        "{people} vont {go} {site} {then}",
        "j'ai {did} {object} {when}",
        "j'ai {did} {object} et tu as {did} {object}",
        "nous avons {did} {object} {site}",
        "vous avez {did} {object} {when}",
        "mon {family_m} est aussi {mood_m} que un {animal_m}",
        "sa {family_f} est plus {mood_f} que {name_m}",
        "la {who_f} est {mood_f} parce que le {vehicle} est en retard",
        "{creature} a {rested_animal} {site} {when}",
        "le {animal_m} {coat_m} est plus grand que la {animal_f} {coat_f}",
        "il y a {number} {many} {site}",
        "il y a une {thing_f} {look_f} {site}",
        "il y avait un {animal_m} {coat_m} sous la {thing_f}",
        "avec {sky} le {room_m} est {empty}",
        "le {thing_m} est sur la {thing_f} {colour_f}",
        "le {vehicle} pour {goal} part à {hour} heures",
        "{season} il fait {weather} et {weather}",
        "s'il fait {weather} nous allons {rest} {site}",
        "pourquoi est ce que {person} a {did} {object}",
        "où est ce que {person} a {did} {object}",
        "qui a {did} {object} {when}",
        "qui est la {who_f} {mood_f} qui travaille {site}",
        "combien de {many} sont {site}",
        "quand est ce que {person} {can} {do} {object}",
        "{can_you} tu {do} {object} {then}",
        "nous {can_we} aller {site} avec {person}",
        "il ne faut pas {do} {the_object} {then}",
    ],
}
