"""Russian sentences of the open world; what a word stands after decides its case."""

# ruff: noqa: RUF001 (some Russian words look like Latin letters)

from omni_avsr.toy.grammar.rules import Repairs, Rules, ending

REPAIRS: Repairs = []
REPAIRED = ""


def _adjectives(words: str, new: str) -> str:
    """Returns masculine adjectives of hard stems with another ending."""
    return ending(ending(words, "ый", new), "ой", new)


_MOODS = """
    молодой старый весёлый грустный усталый сердитый добрый умный смелый известный ленивый голодный
    спокойный богатый бедный занятой честный сильный вежливый
"""
_STATES = "грустный усталый сердитый голодный спокойный весёлый"
_LOOKS = "новый старый тяжёлый грязный чистый пустой дорогой красивый странный круглый деревянный"
_COLOURS = "красный белый чёрный зелёный жёлтый серый"
_COATS = "белый чёрный серый"
_PLACE_LOOKS = "старый новый красивый тёмный пустой большой"
_THINGS_F = """
    книга лампа сумка чашка тарелка бутылка ложка вилка карта картина ручка рубашка шляпа коробка
    гитара газета игрушка корзина монета
"""
_DID = "потерял купил продал взял сломал починил забыл спрятал увидел вымыл"
_FOUND = "потерял купил продал увидел"
_RESTED = "спал плакал ждал танцевал пел работал играл сидел стоял отдыхал"
_RESTED_ANIMAL = "спал ждал играл сидел стоял"

RULES: Rules = {
    "family_m": "отец брат дядя дедушка сосед друг",
    "family_f": "мать сестра тётя бабушка соседка подруга",
    "who_m": """
        учитель врач фермер водитель пекарь капитан солдат студент певец писатель художник мальчик
        король повар инженер пилот моряк
    """,
    "who_f": """
        учительница студентка певица художница девочка женщина королева актриса продавщица
    """,
    "name_m": "иван пётр борис андрей михаил",
    "name_f": "анна мария ольга елена наташа",
    "of_m": "отца брата дяди дедушки соседа друга учителя врача",  # genitive
    "of_f": "матери сестры тёти бабушки соседки подруги учительницы",
    "of_name": "ивана петра бориса андрея анны марии ольги елены наташи",
    "to_whom": "отцу брату другу соседу дедушке матери сестре подруге бабушке анне ивану ольге",
    "with_whom": """
        отцом братом другом соседом дедушкой матерью сестрой подругой бабушкой анной иваном
        учителем
    """,
    "animal_m": "кот пёс конь кролик медведь лев тигр слон волк осёл",
    "animal_m_seen": "кота пса коня кролика медведя льва тигра слона волка осла",
    "animal_f": "собака кошка корова овца коза птица лиса лягушка",
    "animal_f_seen": "собаку кошку корову овцу козу птицу лису лягушку",
    "food": "хлеб сыр рис суп шоколад мёд рыбу кашу курицу мясо масло варенье",
    "drink": "чай кофе сок воду молоко",
    "thing_m": """
        ключ телефон зонт стакан нож карандаш билет барабан подарок молоток журнал мяч ковёр
        чемодан фонарь плащ компьютер портфель
    """,
    "thing_f": _THINGS_F,
    "thing_f_seen": ending(_THINGS_F, "а", "у"),
    "thing_n": "письмо зеркало яблоко яйцо одеяло полотенце кольцо пальто",
    "no_thing_m": "ключа телефона зонта стакана ножа карандаша билета подарка журнала чемодана",
    "no_thing_f": "книги лампы сумки чашки тарелки бутылки ложки карты картины газеты",
    "furniture": "стол стул шкаф диван",
    "vehicle": "поезд автобус самолёт корабль грузовик",
    "to_m": "сад магазин офис музей парк лес город замок театр ресторан гараж банк",
    "in_m": "саду магазине офисе музее парке лесу городе замке театре ресторане гараже банке",
    "to_f": "школу церковь библиотеку деревню больницу гостиницу башню комнату квартиру",
    "in_f": "школе церкви библиотеке деревне больнице гостинице башне комнате квартире",
    "onto": "рынок вокзал пляж улицу кухню площадь",
    "on": "рынке вокзале пляже улице кухне площади",
    "near": "дома парка леса озера музея театра рынка вокзала школы церкви реки деревни моста",
    "mood_m": _MOODS,
    "mood_f": _adjectives(_MOODS, "ая"),
    "state_m": _STATES,
    "state_f": _adjectives(_STATES, "ая"),
    "look_m": _LOOKS,
    "look_f": _adjectives(_LOOKS, "ая"),
    "look_n": _adjectives(_LOOKS, "ое"),
    "look_f_seen": _adjectives(_LOOKS, "ую"),
    "no_look_m": _adjectives(_LOOKS, "ого"),
    "no_look_f": _adjectives(_LOOKS, "ой"),
    "in_look_m": _adjectives(_PLACE_LOOKS, "ом"),
    "in_look_f": _adjectives(_PLACE_LOOKS, "ой"),
    "colour_m": f"{_COLOURS} синий",
    "colour_f": f"{_adjectives(_COLOURS, 'ая')} синяя",
    "colour_n": f"{_adjectives(_COLOURS, 'ое')} синее",
    "colour_f_seen": f"{_adjectives(_COLOURS, 'ую')} синюю",
    "coat_m": _COATS,
    "coat_f": _adjectives(_COATS, "ая"),
    "coat_m_seen": _adjectives(_COATS, "ого"),
    "coat_f_seen": _adjectives(_COATS, "ую"),
    "two_m": "два три четыре",  # with the genitive singular
    "two_f": "две три четыре",
    "two_things_m": "стола ключа билета кота дома друга письма яблока зеркала",
    "two_things_f": "книги лампы сестры картины чашки собаки подруги тарелки",
    "five": "пять шесть семь восемь девять десять двадцать тридцать сто",  # genitive plural
    "five_things": """
        книг ламп домов ключей билетов друзей писем яблок цветов деревьев камней окон тарелок собак
    """,
    "hour": "пять шесть семь восемь девять десять",
    "two_spans_m": "часа дня месяца года",
    "two_spans_f": "недели минуты",
    "five_spans": "дней недель месяцев лет часов минут",
    "did_m": f"{_DID} нашёл",
    "did_f": f"{ending(_DID, 'л', 'ла')} нашла",
    "did_they": f"{ending(_DID, 'л', 'ли')} нашли принесли",
    "found_m": f"{_FOUND} нашёл",
    "found_f": f"{ending(_FOUND, 'л', 'ла')} нашла",
    "gave_m": "дал подарил принёс отдал",
    "gave_f": "дала подарила принесла отдала",
    "will": "купит найдёт продаст возьмёт принесёт починит вымоет спрячет",
    "will_i": "куплю найду продам возьму принесу починю вымою спрячу",
    "do": "найти купить продать взять принести сломать починить спрятать вымыть почистить",
    "went_m": "пошёл приехал вернулся побежал",
    "went_f": "пошла приехала вернулась побежала",
    "went_they": "пошли приехали вернулись побежали",
    "go": "пойти поехать побежать вернуться",
    "rested_m": _RESTED,
    "rested_f": ending(_RESTED, "л", "ла"),
    "rested_they": ending(_RESTED, "л", "ли"),
    "rested_animal_m": _RESTED_ANIMAL,
    "rested_animal_f": ending(_RESTED_ANIMAL, "л", "ла"),
    "rest": "спать ждать танцевать петь работать играть отдыхать",
    "does": "берёт ищет покупает теряет забывает моет",
    "do_i": "беру ищу покупаю теряю забываю",
    "do_we": "берём ищем покупаем теряем забываем",
    "do_they": "берут ищут покупают теряют забывают моют",
    "can": "может хочет должен",
    "can_f": "может хочет должна",
    "can_you": "можешь хочешь",
    "can_we": "можем хотим",
    "pace": "медленно быстро тихо осторожно",
    "manner": "тихо спокойно долго часто",
    "often": "всегда часто иногда редко",
    "month": """
        январе феврале марте апреле мае июне июле августе сентябре октябре ноябре декабре
    """,
    "season": "весной летом осенью зимой",
    "weather": "тепло холодно темно светло сухо ветрено",
    "sky_m": "дождь снег",
    "sky_f": "гроза буря метель",
    "day": [
        "в понедельник",
        "во вторник",
        "в среду",
        "в четверг",
        "в пятницу",
        "в субботу",
        "в воскресенье",
    ],
    "man": ["{name_m}", "мой {family_m}", "наш {family_m}", "{mood_m} {who_m}", "этот {who_m}"],
    "woman": ["{name_f}", "моя {family_f}", "наша {family_f}", "{mood_f} {who_f}", "эта {who_f}"],
    "person": ["{man}", "{woman}"],
    "people": ["мои родители", "дети", "наши соседи", "мои сёстры", "они", "{name_m} и {name_f}"],
    "whose": ["моего {of_m}", "моей {of_f}", "{of_name}"],
    "has": ["у меня", "у нас", "у тебя", "у {whose}"],
    "object": [
        "{colour_m} {thing_m}",
        "{colour_f_seen} {thing_f_seen}",
        "{colour_n} {thing_n}",
        "{look_m} {thing_m}",
        "{look_f_seen} {thing_f_seen}",
        "{look_n} {thing_n}",
        "свой {thing_m}",
        "свою {thing_f_seen}",
        "этот {thing_m}",
        "эту {thing_f_seen}",
    ],
    "count": [
        "{two_m} {two_things_m}",
        "{two_f} {two_things_f}",
        "{five} {five_things}",
    ],
    "counted": ["{five} {five_things}", "две {no_thing_f}", "три {no_thing_m}"],
    "span": ["{two_m} {two_spans_m}", "{two_f} {two_spans_f}", "{five} {five_spans}"],
    "place": [
        "в {in_m}",
        "в {in_f}",
        "в {in_look_m} {in_m}",
        "в {in_look_f} {in_f}",
        "в нашем {in_m}",
        "в нашей {in_f}",
        "на {on}",
        "около {near}",
    ],
    "goal": ["в {to_m}", "в {to_f}", "в этот {to_m}", "в нашу {to_f}", "на {onto}"],
    "when": [
        "сегодня",
        "вчера",
        "утром",
        "вечером",
        "{day}",
        "перед обедом",
        "на прошлой неделе",
    ],
    "daily": ["утром", "вечером", "перед обедом", "{day}"],
    "then": [
        "завтра",
        "сегодня вечером",
        "на следующей неделе",
        "в {month}",
        "после обеда",
        "{season}",
    ],
    "sentence": [
        "{man} {did_m} {object} {when}",
        "{woman} {did_f} {object} {when}",
        "{man} {did_m} {object} {place}",
        "{woman} {did_f} {object} {place}",
        "{man} {found_m} {counted} {when}",
        "{woman} {found_f} {counted} {place}",
        "{man} {gave_m} {to_whom} {object} {when}",
        "{woman} {gave_f} {to_whom} {object}",
        "{man} {went_m} {goal} {pace}",
        "{woman} {went_f} {goal} {when}",
        "{man} {rested_m} {place} {span}",
        "{woman} {rested_f} {place} {span}",
        "{man} {manner} {rested_m} {place}",
        "{woman} {manner} {rested_f} {place}",
        "{person} {often} {does} {object}",
        "{person} ест {food} и пьёт {drink} {daily}",
        "{person} любит {food} но не {drink}",
        "{man} {can} {do} {object} {then}",
        "{woman} {can_f} {do} {object} {then}",
        "{man} не {can} {do} {object} без {whose}",
        "{woman} не {can_f} {rest} {place} {then}",
        "{person} хочет {go} {goal} {then}",
        "{person} {then} {will} {object}",
        "{man} сказал что {woman} очень {mood_f}",
        "{woman} сказала что {man} очень {mood_m}",
        "{person} думает что {man} {did_m} {object}",
        "{man} увидел {coat_m_seen} {animal_m_seen} {place}",
        "{woman} увидела {coat_f_seen} {animal_f_seen} {place}",
        "{people} {did_they} {object} {when}",
        "{people} {went_they} {goal} с {with_whom}",
        "{people} {rested_they} {place} {when}",
        "{people} {often} {do_they} {object}",
        "{has} есть {count} и {look_f} {thing_f}",
        "{has} был {colour_m} {thing_m}",
        "{has} была {colour_f} {thing_f}",
        "{has} нет {no_look_m} {no_thing_m}",
        "{has} нет {no_look_f} {no_thing_f}",
        "мой {family_m} такой же {mood_m} как {animal_m}",
        "сегодня {woman} {state_f} потому что {vehicle} опоздал",
        "моя {family_f} {state_f} потому что идёт {sky_m}",
        "{man} был очень {state_m} {when}",
        "{coat_m} {animal_m} {rested_animal_m} {place} {when}",
        "{coat_f} {animal_f} {rested_animal_f} {place} {when}",
        "{coat_m} {animal_m} больше чем {coat_f} {animal_f}",
        "{place} было {five} {five_things}",
        "{place} стоит {look_m} {furniture}",
        "{place} лежит {look_f} {thing_f}",
        "{when} начался {sky_m} и было {weather}",
        "{when} началась {sky_f} и стало {weather}",
        "{vehicle} {goal} уходит в {hour} часов",
        "{season} {place} очень {weather}",
        "если завтра будет {weather} мы будем {rest} {place}",
        "почему {man} {did_m} {object}",
        "где {woman} {did_f} {object}",
        "кто {did_m} {object} {when}",
        "сколько {five_things} было {place}",
        "когда {person} {will} {object}",
        "ты {can_you} {do} {object} {then}",
        "я {then} {will_i} {object}",
        "я {often} {do_i} {object}",
        "мы {can_we} {go} {goal} с {with_whom}",
        "мы {often} {do_we} {object}",
        "{people} очень любят {food} и {drink}",
        "нельзя {do} {object} {then}",
    ],
}
