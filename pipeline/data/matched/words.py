"""Word lists of the matched suite.

Only cues with one usual answer are listed (no verb with two past tenses, no country with two usual
adjectives), and within a list no answer also fits another cue's question.
"""

from __future__ import annotations


def _pairs(text: str) -> dict[str, str]:
    """Read pairs from `cue: answer; cue: answer; ...`."""
    return dict(pair.split(": ") for pair in " ".join(text.split()).split("; "))


def _words(text: str) -> list[str]:
    """Split running text into words."""
    return text.split()


PAST_TENSE = _pairs(
    """walk: walked; jump: jumped; play: played; cook: cooked; open: opened; close: closed; call: called;
    help: helped; start: started; finish: finished; watch: watched; wash: washed; clean: cleaned; talk:
    talked; ask: asked; answer: answered; look: looked; want: wanted; need: needed; use: used; move:
    moved; live: lived; love: loved; like: liked; stop: stopped; plan: planned; carry: carried; study:
    studied; try: tried; cry: cried; go: went; come: came; see: saw; take: took; give: gave; make: made;
    find: found; know: knew; think: thought; buy: bought; bring: brought; teach: taught; catch: caught;
    write: wrote; drive: drove; ride: rode; speak: spoke; break: broke; choose: chose; eat: ate; drink:
    drank; sing: sang; swim: swam; begin: began; run: ran; sit: sat; stand: stood; tell: told; sell:
    sold; feel: felt; keep: kept; sleep: slept; leave: left; lose: lost; meet: met; send: sent; spend:
    spent; build: built; grow: grew; fly: flew; throw: threw; draw: drew; win: won; hear: heard; say:
    said; pay: paid; hold: held; fall: fell; forget: forgot; wear: wore"""
)

PARTICIPLES = _pairs(
    """walk: walking; jump: jumping; play: playing; cook: cooking; open: opening; call: calling; help:
    helping; start: starting; watch: watching; wash: washing; clean: cleaning; talk: talking; ask:
    asking; look: looking; read: reading; eat: eating; drink: drinking; sleep: sleeping; teach:
    teaching; build: building; write: writing; drive: driving; ride: riding; make: making; take: taking;
    give: giving; come: coming; use: using; move: moving; live: living; dance: dancing; smile: smiling;
    close: closing; hope: hoping; bake: baking; save: saving; leave: leaving; choose: choosing; arrive:
    arriving; change: changing; run: running; sit: sitting; swim: swimming; stop: stopping; plan:
    planning; shop: shopping; cut: cutting; hit: hitting; win: winning; begin: beginning; forget:
    forgetting; get: getting; put: putting; drop: dropping; carry: carrying; study: studying; try:
    trying; cry: crying; fly: flying; buy: buying; say: saying; pay: paying; stay: staying; enjoy:
    enjoying; lie: lying; die: dying; tie: tying; sing: singing; grow: growing; think: thinking"""
)

PLURALS = _pairs(
    """cat: cats; dog: dogs; book: books; car: cars; tree: trees; house: houses; table: tables; chair:
    chairs; apple: apples; river: rivers; window: windows; door: doors; flower: flowers; bird: birds;
    horse: horses; cow: cows; pencil: pencils; phone: phones; school: schools; teacher: teachers; box:
    boxes; bus: buses; glass: glasses; dish: dishes; brush: brushes; church: churches; watch: watches;
    fox: foxes; class: classes; peach: peaches; city: cities; baby: babies; country: countries; story:
    stories; lady: ladies; party: parties; berry: berries; family: families; puppy: puppies; army:
    armies; knife: knives; wife: wives; life: lives; leaf: leaves; wolf: wolves; half: halves; shelf:
    shelves; thief: thieves; loaf: loaves; man: men; woman: women; child: children; foot: feet; tooth:
    teeth; mouse: mice; goose: geese; ox: oxen; person: people; hero: heroes; potato: potatoes; tomato:
    tomatoes; boy: boys; girl: girls; key: keys; toy: toys; day: days; monkey: monkeys; photo: photos;
    piano: pianos; radio: radios; student: students; doctor: doctors"""
)

ANTONYMS = _pairs(
    """hot: cold; big: small; tall: short; fast: slow; young: old; rich: poor; happy: sad; good: bad;
    light: dark; soft: hard; strong: weak; open: closed; empty: full; high: low; deep: shallow; wide:
    narrow; thick: thin; clean: dirty; wet: dry; early: late; loud: quiet; difficult: easy; true: false;
    near: far; up: down; left: right; day: night; black: white; love: hate; birth: death; war: peace;
    win: lose; buy: sell; push: pull; begin: end; laugh: cry; remember: forget; increase: decrease;
    accept: reject; arrive: depart; attack: defend; always: never; before: after; inside: outside;
    front: back; top: bottom; first: last; north: south; east: west; summer: winter; friend: enemy;
    question: answer; cheap: expensive; ancient: modern; public: private; possible: impossible; alive:
    dead; awake: asleep; male: female; positive: negative; maximum: minimum; import: export; guilty:
    innocent; beautiful: ugly; heaven: hell; vertical: horizontal; internal: external; include: exclude;
    add: subtract; multiply: divide; victory: defeat; visible: invisible; legal: illegal; plus: minus;
    yes: no; hello: goodbye"""
)

NATIONALITIES = _pairs(
    """France: French; Germany: German; Italy: Italian; Spain: Spanish; Portugal: Portuguese; Ireland:
    Irish; Austria: Austrian; Belgium: Belgian; Netherlands: Dutch; Denmark: Danish; Sweden: Swedish;
    Norway: Norwegian; Finland: Finnish; Iceland: Icelandic; Poland: Polish; Hungary: Hungarian;
    Romania: Romanian; Bulgaria: Bulgarian; Greece: Greek; Croatia: Croatian; Serbia: Serbian;
    Switzerland: Swiss; Ukraine: Ukrainian; Russia: Russian; China: Chinese; Japan: Japanese; India:
    Indian; Indonesia: Indonesian; Turkey: Turkish; Brazil: Brazilian; Canada: Canadian; Australia:
    Australian; Mexico: Mexican; Chile: Chilean; Colombia: Colombian; Egypt: Egyptian; Iran: Iranian;
    Iraq: Iraqi; Thailand: Thai; Vietnam: Vietnamese; Kenya: Kenyan; Cuba: Cuban; Peru: Peruvian;
    Pakistan: Pakistani; Nigeria: Nigerian; Ethiopia: Ethiopian; Israel: Israeli; Lebanon: Lebanese;
    Morocco: Moroccan; Jamaica: Jamaican; Venezuela: Venezuelan; England: English; Scotland: Scottish;
    Syria: Syrian; Tunisia: Tunisian; Algeria: Algerian; Malaysia: Malaysian; Bolivia: Bolivian;
    Albania: Albanian; Lithuania: Lithuanian; Latvia: Latvian; Estonia: Estonian; Cambodia: Cambodian;
    Mongolia: Mongolian; Libya: Libyan; Zambia: Zambian; Ghana: Ghanaian; Uganda: Ugandan; Ecuador:
    Ecuadorian; Jordan: Jordanian"""
)

COMMON_WORDS = _words(
    """apple river stone cloud chair green music paper horse bread light ocean tiger table house water
    garden bridge winter summer window flower mountain silver golden letter pencil orange yellow purple
    school teacher doctor farmer singer dancer kitchen bottle basket button candle carpet castle circle
    coffee corner cotton desert dinner dragon engine family forest friend hammer harbor island jacket
    ladder lemon market mirror monkey morning needle number office palace pepper pillow planet pocket
    potato rabbit rocket season shadow shoulder spider spring square station street sugar temple ticket
    tomato travel tunnel turtle valley village violin wagon weather wheel whisper zebra bird fish moon
    star tree road snow rain wind fire"""
)

NOUNS = _words(
    """cat dog house car door window book table chair tree flower river city school shirt coat bag box cup
    bird horse road room garden"""
)

ADJECTIVES = _words("red blue green black white big small new old clean dirty dark heavy cheap wet dry warm cold")
