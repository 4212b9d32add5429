"""The order of names: that of the Unicode collation algorithm (UTS 10), as far as letters differ at its first level."""

from contacts_api.text import fold, normalize

# The letters of each script in the order of CLDR 42: Latin and Greek as in its root collation, Cyrillic as in `uk`.
# Left out are letters that weigh the same as others.
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
# Letters that weigh the same as other letters, which follow each.
_SAME = (
    "ꞛa ꟁa ꜳaa ꜵao ꜷau ꜹav ꜻav ꜽay ꝺd ȸdb ʣdz ꝼf 𝼀ʩ ᵹg ꞡg ꞣk ỻll ʪls ʫlz ꞥn ꞝo ꝏoo ȹqp ꝛr ꞃr ꞧr ꞅs ꞩs ꟙs ꞇt "
    "ʨtɕ ᵺth ƾts ʦts ꭧtʂ ʧtʃ 𝼗tᶋ 𝼜tᶘ ꜩtz ꞟu ꝡvy ꟃw ƍzw ꙩо ꙫо ꙭо ꙮо ꚙо ꚛо"
)
# Code points order these as the collation does.
_IN_ORDER = frozenset("abcdefghijklmnopqrstuvwxyzαβγδεζηθικλμνξοπρστυφχψωабвгдежзиклмнопрстуфхцчшщъыьэюя")
# The last private characters, so that a letter that is written with one sorts after its neighbour and all that follows.
_FIRST_PRIVATE = 0x100000


def _places() -> dict[str, str]:
    """Return what replaces each letter whose code point is out of order: the letter before it, and its distance."""
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
    """Return a folded form of `text` that code points sort as the collation does; case and accents make no difference.

    Latin comes before Greek, and Greek before Cyrillic. All that is no letter of these stays at its code point.
    """
    if text.isascii():
        return fold(text)
    # `fold` writes the Greek iota subscript, a mark, as a letter.
    text = normalize("NFKD", text.replace("\u00b4", "'")).replace("\u0345", "").casefold()
    # Of the letters that Unicode decomposes, these two are letters of their own.
    text = text.replace("и\u0306", "й").replace("і\u0308", "ї")
    return fold(text.translate(_PLACES))
