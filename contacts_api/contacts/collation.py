"""The sort order of names: the primary level of the Unicode collation algorithm (UTS 10)."""

from contacts_api.text import fold, normalize

# The letters of each script in the order of CLDR 42: Latin and Greek from the root collation, Cyrillic from `uk`.
# Letters with the same weight as another letter are in _SAME instead.
_LATIN = (
    "aᴀⱥᶏꞻᴁᴂꬱɐɑꬰᶐɒꭤbʙƀᴃᵬꞗᶀɓƃꞵcᴄȼꞓꞔ𝼝ƈɕↄꜿdꭦʥʤ𝼒𝼙ᴅᴆꟈᵭᶁɖɗᶑƌȡꝱẟeᴇꬲꬳɇᶒꬴⱸǝⱻəᶕɛᶓɘɚɜᶔᴈɝɞʚɤfʩꜰꬵꞙᵮᶂƒꟻgꟑɡ𝼁ꬶɢǥᶃɠʛᵷ𝼂ꝿɣƣh"
    "ʜƕꞕɦⱨⱶꟶꜧɧiıɪꟾꟷᴉɨᵻ𝼚ᶖꞽɩᵼjȷᴊɉʝɟʄkᴋᶄƙⱪꝁꝃꝅ𝼃ʞ𝼐lʟꝇᴌꝉƚⱡɫꬸꬹɬ𝼄𝼓ꬷᶅɭꞎ𝼑ȴꝲɮ𝼅ꞁƛʎ𝼆mᴍᵯᶆɱꬺꟽꟿꝳnɴᴎᵰɲƞꞑᶇɳȵꬻꝴŋꬼ𝼔𝼇oᴏᴑꬽɶᴔꭁꭂꭀ"
    "ꭃꭄᴓꬾ𝼛ɔᴐᴒꬿᶗꭢꝍᴖᴗⱺɵꝋɷꞷȣᴕpᴘᵽꝑᵱᶈƥꝓꝕꟼɸⱷqꞯꝗꝙʠɋĸrꭅʀꭆᴙɍᵲɹᴚɺ𝼈ɻⱹᶉɼɽꭉɾᵳ𝼖ɿꭇꭈꭊꭋꭌʁꭨ𝼕ꝵꝶꝝsꜱꟊᵴᶊʂ𝼞ȿꟗẜẝʃꭍᶋᶘƪʅʆ𝼋𝼌tᴛŧⱦᵵƫƭʈ"
    "𝼉ȶꝷʇ𝼍uᴜꭎᴝᴞᵫꭐꭑʉꭏꞹᵾᶙꭒꞿɥʮʯɯꟺᴟɰʊᵿvᴠꝟᶌʋⱱⱴỽʌwᴡⱳʍxᶍꭖꭗꭘꭙꭓꭔꭕyʏɏƴỿꭚȝzᴢƶᵶᶎȥʐʑɀⱬꝣʒᴣƹ𝼘ᶚƺʓþꟓꝥꝧƿꟕꝩꭠꭡꭣꝫꝭꝯꝸƻꜫꜭꜯƨƽƅʔɂꜣ"
    "ꞌꞏʕᴤᴥꜥʡʢʖ𝼎ǀǁǂǃ𝼊ʗ𝼏ʘʬʭ"
)
_GREEK = "αβγᴦδεϝͷϛζͱηθιϳκϗλᴧμνξοπᴨϻϟϙρᴩϼσͼͻͽτυφχψᴪωꭥϡͳϸ"
_CYRILLIC = (
    "аәӕбвгґғӻҕӷдԁꚁђꙣԃҙеєжԫꚅҗзꙁԅԑꙃѕꙅӡꚉԇꚃиҋіꙇїйјꙉкқӄҡҟҝԟԛлᴫӆԯԓԡљꙥԉԕмӎꙧнԩӊңӈԣҥњԋоөпԥҧҁрҏԗсԍҫтꚍԏҭꚋћуүұꙋѹфхӽӿ"
    "ҳһԧꚕѡѿꙍѽѻцꙡꚏҵꚑчԭꚓҷӌҹꚇҽҿџшꚗщꙏꙿъꙑыьҍѣꙓэюꙕꙗяԙѥѧꙙѫꙛѩꙝѭѯѱѳѵꙟҩԝӏ"
)
# Letters that have the same weight as one or more other letters. Each is followed by those letters.
_SAME = (
    "ꞛa ꟁa ꜳaa ꜵao ꜷau ꜹav ꜻav ꜽay ꝺd ȸdb ʣdz ꝼf 𝼀ʩ ᵹg ꞡg ꞣk ỻll ʪls ʫlz ꞥn ꞝo ꝏoo ȹqp ꝛr ꞃr ꞧr ꞅs ꞩs ꟙs ꞇt "
    "ʨtɕ ᵺth ƾts ʦts ꭧtʂ ʧtʃ 𝼗tᶋ 𝼜tᶘ ꜩtz ꞟu ꝡvy ꟃw ƍzw ꙩо ꙫо ꙭо ꙮо ꚙо ꚛо"
)
# The order of these code points is that of the collation.
_IN_ORDER = frozenset("abcdefghijklmnopqrstuvwxyzαβγδεζηθικλμνξοπρστυφχψωабвгдежзиклмнопрстуфхцчшщъыьэюя")
# The last private use area. A letter encoded with one of these characters sorts after its neighbour and anything that
# follows it.
_FIRST_PRIVATE = 0x100000


def _places() -> dict[str, str]:
    """Return replacements for letters whose code points are out of order: the letter before it, and its distance."""
    places: dict[str, str] = {}
    for letter in _LATIN + _GREEK + _CYRILLIC:
        if letter in _IN_ORDER:
            neighbour, distance = letter, 0
        else:
            places[letter] = neighbour + chr(_FIRST_PRIVATE + distance)
            distance += 1
    same = {each[0]: each[1:] for each in _SAME.split()}
    return places | {letter: "".join(places.get(other, other) for other in others) for letter, others in same.items()}


_PLACES = str.maketrans(_places())


def sort_form(text: str) -> str:
    """Return a form of `text` whose order by code points is the order of the collation. Ignores case and accents.

    Latin sorts before Greek, and Greek before Cyrillic. All other characters sort by their code points.
    """
    if text.isascii():
        return fold(text)
    # Drop the Greek iota subscript, a mark, because `fold` would turn it into a letter.
    text = normalize("NFKD", text.replace("\u00b4", "'")).replace("\u0345", "").casefold()
    # NFKD decomposes these two, but the collation treats them as separate letters.
    text = text.replace("и\u0306", "й").replace("і\u0308", "ї")
    return fold(text.translate(_PLACES))
