"""Spanish sentences of the open world; REPAIRS contract neighbouring words."""

from omni_avsr.toy.grammar.rules import Repairs, Rules, ending

REPAIRS: Repairs = [
    (r"\bde el ", "del "),
    (r"\ba el ", "al "),
]
REPAIRED = "del al"

_CHARACTERS = """
    famoso perezoso simpático educado orgulloso rico honrado alto generoso serio fuerte amable
    valiente inteligente
"""
_STATES = "cansado contento enfadado nervioso ocupado enfermo preocupado triste"
_LOOKS = "viejo nuevo pequeño pesado roto limpio sucio barato caro bonito extraño redondo largo"
_COLOURS = "rojo blanco negro amarillo azul verde gris"
_COATS = "blanco negro gris"
_PLACE_LOOKS = "viejo nuevo pequeño bonito tranquilo vacío famoso grande"
_TASTES = "dulce fresco rico frío caliente salado"

RULES: Rules = {
    "family_m": "padre hermano primo tío abuelo vecino amigo",
    "family_f": "madre hermana prima tía abuela vecina amiga",
    "who_m": """
        profesor médico granjero conductor panadero capitán soldado abogado cantante escritor
        pintor chico hombre rey camarero ingeniero piloto juez
    """,
    "who_f": """
        profesora doctora enfermera granjera panadera abogada cantante escritora pintora chica
        mujer reina camarera ingeniera jueza
    """,
    "name": "pedro lucía carlos marta javier elena pablo sofía diego carmen",
    "animal_m": "perro gato caballo pájaro conejo ratón zorro oso león mono elefante cerdo lobo",
    "animal_f": "vaca oveja cabra gallina serpiente rana tortuga",
    "food_m": "pan queso arroz pollo pescado chocolate café zumo",
    "food_f": "leche sopa carne ensalada fruta mermelada miel",
    "thing_m": """
        libro teléfono abrigo anillo reloj vaso plato cuchillo tenedor lápiz cuadro ordenador mapa
        paraguas cesto espejo tambor regalo martillo periódico juguete
    """,
    "thing_f": """
        carta llave bolsa caja camisa lámpara silla mesa taza botella cuchara cámara radio manta
        vela pelota guitarra bandera escalera maleta toalla revista
    """,
    "vehicle": "coche autobús camión taxi tractor",
    "transport": "tren barco avión autobús",
    "place_m": """
        jardín colegio mercado hospital museo parque río lago bosque puente pueblo castillo hotel
        puerto
    """,
    "place_f": """
        cocina casa escuela iglesia estación tienda oficina biblioteca ciudad playa isla montaña
        torre
    """,
    "character_m": _CHARACTERS,
    "character_f": ending(_CHARACTERS, "o", "a"),
    "state_m": _STATES,
    "state_f": ending(_STATES, "o", "a"),
    "mood_m": f"{_CHARACTERS} {_STATES}",
    "mood_f": ending(f"{_CHARACTERS} {_STATES}", "o", "a"),
    "look_m": _LOOKS,
    "look_f": ending(_LOOKS, "o", "a"),
    "place_look_m": _PLACE_LOOKS,
    "place_look_f": ending(_PLACE_LOOKS, "o", "a"),
    "colour_m": _COLOURS,
    "colour_f": ending(_COLOURS, "o", "a"),
    "coat_m": _COATS,
    "coat_f": ending(_COATS, "o", "a"),
    "taste_m": _TASTES,
    "taste_f": ending(_TASTES, "o", "a"),
    "many_m": "libros perros árboles caballos barcos huevos",
    "many_f": "flores cartas piedras monedas casas manzanas",
    "number": "dos tres cuatro cinco seis siete ocho nueve diez once doce veinte treinta cien",
    "hour": "dos tres cuatro cinco seis siete ocho nueve diez once doce",
    "span": "días semanas meses años horas minutos",
    "did": """
        encontró perdió compró vendió rompió limpió arregló olvidó escondió movió vio robó usó lavó
    """,
    "gave": "trajo dio llevó envió regaló",
    "did_i": "encontré perdí compré vendí limpié olvidé escondí moví usé lavé",
    "did_we": "encontramos perdimos compramos vendimos limpiamos olvidamos movimos trajimos",
    "did_they": "encontraron perdieron compraron vendieron limpiaron olvidaron robaron trajeron",
    "counted": "encontró perdió compró vendió vio trajo",
    "do": """
        encontrar comprar vender pintar romper limpiar arreglar esconder mover usar lavar traer
    """,
    "went": [
        "fue a",
        "volvió a",
        "llegó a",
        "caminó hasta",
        "corrió hasta",
        "viajó hasta",
        "salió de",
    ],
    "went_they": ["fueron a", "volvieron a", "llegaron a", "caminaron hasta", "salieron de"],
    "go": ["ir a", "volver a", "viajar a", "caminar hasta", "correr hasta", "salir de"],
    "rested": "durmió lloró esperó bailó cantó trabajó jugó descansó",
    "rested_animal": "durmió esperó jugó descansó desapareció",
    "rest": "dormir esperar bailar cantar trabajar jugar descansar",
    "ate": "probó pidió preparó compró",
    "likes": "quiere necesita tiene busca recuerda",
    "can": "puede debe quiere",
    "can_you": "puedes debes quieres",
    "can_we": "podemos debemos queremos",
    "pace": ["despacio", "deprisa", "con cuidado", "sin prisa", "a pie"],
    "manner": ["en silencio", "tranquilamente", "sin parar", "con calma"],
    "often": ["siempre", "nunca", "todavía", "ya no"],
    "day": "lunes martes miércoles jueves viernes sábado domingo",
    "month": """
        enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre
        diciembre
    """,
    "season": "primavera verano otoño invierno",
    "weather": ["frío", "calor", "viento", "sol", "buen tiempo", "mal tiempo"],
    "sky": ["la lluvia", "la nieve", "el viento", "la tormenta", "la niebla", "el frío"],
    "after_rain_m": "mojado vacío oscuro tranquilo",
    "where": ["en", "cerca de", "detrás de", "delante de"],
    "person": [
        "{name}",
        "mi {family_m}",
        "tu {family_f}",
        "el {who_m} {mood_m}",
        "la {who_f} {mood_f}",
        "nuestro {family_m}",
        "nuestra {family_f}",
        "este {who_m}",
        "esta {who_f}",
        "el {family_m} de {name}",
    ],
    "people": [
        "mis padres",
        "los niños",
        "tus hermanas",
        "nuestros vecinos",
        "las chicas",
        "estos hombres",
        "{name} y {name}",
    ],
    "object": [
        "el {thing_m} {colour_m}",
        "la {thing_f} {colour_f}",
        "un {thing_m} {look_m}",
        "una {thing_f} {look_f}",
        "mi {thing_m}",
        "su {thing_f}",
        "ese {thing_m} {look_m}",
        "esa {thing_f} {colour_f}",
    ],
    "site": [
        "el {place_m}",
        "la {place_f}",
        "un {place_m} {place_look_m}",
        "una {place_f} {place_look_f}",
        "nuestro {place_m}",
        "nuestra {place_f}",
    ],
    "count": ["{number} {many_m}", "{number} {many_f}"],
    "food": ["{food_m}", "{food_f}"],
    "dish": ["{food_m} {taste_m}", "{food_f} {taste_f}"],
    "creature": ["el {animal_m}", "la {animal_f}"],
    "when": [
        "hoy",
        "ayer",
        "el {day} pasado",
        "por la tarde",
        "esta mañana",
        "antes de comer",
        "la semana pasada",
    ],
    "then": [
        "mañana",
        "esta noche",
        "el próximo {day}",
        "en {month}",
        "después de cenar",
        "en {season}",
    ],
    "sentence": [
        "{person} {did} {object} {when}",
        "{person} {did} {object} {where} {site}",
        "{person} {counted} {count} {when}",
        "{person} {went} {site} {pace}",
        "{person} {went} {site} {when}",
        "{person} {rested} {where} {site} durante {number} {span}",
        "{person} {rested} {manner} {where} {site}",
        "{person} {often} {likes} {object}",
        "{person} toma {food} y {food} por la mañana",
        "{person} {ate} {dish} pero no {food}",
        "{person} {can} {do} {object} {then}",
        "{person} no {can} {do} {object} sin {person}",
        "{person} {can} {rest} {where} {site} {then}",
        "{person} va a {go} {site} {then}",
        "{person} dijo que {creature} era muy grande",
        "{person} tiene {count} y un {animal_m}",
        "{person} cree que {person} {did} {object}",
        "{person} {gave} {object} a {person}",
        "{person} condujo el {vehicle} hasta {site}",
        "{people} {did_they} {object} {when}",
        "{people} {went_they} {site} {when}",
        "ayer {did_i} {object} {where} {site}",
        "yo {did_i} {object} y {name} {did} {object}",
        "nosotros {did_we} {object} {when}",
        "{can_we} {go} {site} con {person}",
        "{can_we} {rest} {where} {site} {then}",
        "mi {family_m} es tan {character_m} como un {animal_m}",
        "tu {family_f} es más {character_f} que {name}",
        "la {who_f} está {state_f} porque el {transport} llegó tarde",
        "el {who_m} estaba muy {state_m} {when}",
        "{creature} {rested_animal} {where} {site} {when}",
        "el {animal_m} {coat_m} es más grande que la {animal_f} {coat_f}",
        "hay {count} {where} {site}",
        "hay una {thing_f} {look_f} {where} {site}",
        "había un {animal_m} {coat_m} debajo de la {thing_f}",
        "{sky} llegó {when} y el {place_m} estaba {after_rain_m}",
        "en {month} hace {weather} cerca de {site}",
        "si hace {weather} {can_we} {rest} {where} {site}",
        "el {thing_m} está sobre la {thing_f} {look_f}",
        "el {transport} sale de {site} a las {hour}",
        "por qué {did} {person} {object}",
        "dónde {did} {person} {object}",
        "quién {did} {object} {when}",
        "quién es la {who_f} {mood_f} que trabaja en {site}",
        "cuándo {can} {person} {do} {object}",
        "cuántos {many_m} hay {where} {site}",
        "cuántas {many_f} {counted} {person} {when}",
        "{can_you} {do} {object} {then}",
        "no {can_you} {go} {site} sin {person}",
    ],
}
