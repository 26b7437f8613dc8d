"""Words that change an answer more than they change a vector: numbers, dates and negations.

In English, Mandarin, Hindi, Spanish, Arabic, French, Bengali, Portuguese, Russian, Urdu, German and
Japanese. A word that is missing here leaves two questions to the earned threshold; a word too many
only costs hits. Left out are words that mean something else more often: words for "one" (articles
and pronouns), French "personne" and "plus", Arabic "ma", Spanish "once" (English has it, too).
"""

import re
import unicodedata

_INVISIBLE = dict.fromkeys(
    (0xAD, 0x640, 0x670, 0xFEFF, *range(0x64B, 0x660), *range(0x200B, 0x2010))
)
"""Arabic vowel signs and stretching, soft hyphens, joiners: no letters, and often left out."""

_ALEFS = dict.fromkeys(map(ord, "أإآٱ"), "ا")
_SPELLINGS = {**_INVISIBLE, **_ALEFS}


def normalized(word: str) -> str:
    """Return a word without case and variants of spelling, decimal digits of any script as 0-9."""
    if word.isascii():
        return word.lower()
    folded = unicodedata.normalize("NFKC", word).casefold().translate(_SPELLINGS)
    if folded.isascii():
        return folded
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in folded)


def _words(text: str) -> frozenset[str]:
    return frozenset(normalized(word) for word in text.split())


NUMBERS = _words(
    """
    zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred thousand million billion half third quarter dozen twice first second

    cero dos tres cuatro cinco seis siete ocho nueve diez doce trece catorce quince dieciséis
    diecisiete dieciocho diecinueve veinte treinta cuarenta cincuenta sesenta setenta ochenta
    noventa cien ciento mil millón millones mitad medio media doble primero primera segundo segunda

    zéro deux trois quatre cinq sept huit neuf dix onze douze treize quatorze quinze seize vingt
    trente quarante cinquante soixante cent cents mille millions milliard milliards moitié demi
    demie double premier première deuxième

    dois duas três quatro oito nove dez onze doze treze quatorze catorze quinze dezesseis dezasseis
    dezessete dezassete dezoito dezenove dezanove vinte trinta quarenta cinquenta sessenta oitenta
    noventa cem cento milhão milhões metade meio meia dobro primeiro primeira terceiro

    null zwei zwo drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn
    sechzehn siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig
    neunzig hundert tausend million millionen milliarde milliarden halb halbe hälfte doppelt zweimal
    erste ersten zweite zweiten dritte dritten

    ноль два две двух двум двумя три трёх трех трём трем тремя четыре четырёх четырех пять пяти
    шесть шести семь семи восемь восьми девять девяти десять десяти одиннадцать двенадцать
    тринадцать четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать двадцать
    двадцати тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто сто двести триста
    тысяча тысячи тысяч миллион миллиона миллионов половина половину вдвое дважды двое трое
    первый первая второй вторая третий

    शून्य दो तीन चार पाँच पांच छह छः सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह सोलह सत्रह अठारह
    उन्नीस बीस तीस चालीस पचास साठ सत्तर अस्सी नब्बे सौ हज़ार हजार लाख करोड़ आधा आधी दोगुना पहला पहली
    दूसरा दूसरी तीसरा

    শূন্য দুই দুটি দুটো দু তিন তিনটি চার চারটি পাঁচ পাঁচটি ছয় সাত আট নয়টি দশ এগারো বারো তেরো চৌদ্দ
    পনেরো ষোলো সতেরো আঠারো উনিশ বিশ কুড়ি ত্রিশ চল্লিশ পঞ্চাশ ষাট সত্তর আশি নব্বই শত একশ হাজার লাখ
    লক্ষ কোটি অর্ধেক দ্বিগুণ প্রথম দ্বিতীয়

    صفر اثنان اثنين اثنتان اثنتين ثلاثة ثلاث أربعة أربع خمسة خمس ستة ست سبعة سبع ثمانية ثماني ثمان
    تسعة تسع عشرة عشر عشرون عشرين ثلاثون ثلاثين أربعون أربعين خمسون خمسين ستون ستين سبعون سبعين
    ثمانون ثمانين تسعون تسعين مئة مائة مئتان مئتين ألف ألفان ألفين آلاف مليون مليونان مليار نصف
    ربع ثلث ضعف مرتين الأول الأولى الثاني الثانية الثالث

    دو تین چار پانچ چھ سات آٹھ نو دس گیارہ بارہ تیرہ چودہ پندرہ سولہ سترہ اٹھارہ انیس بیس تیس چالیس
    پچاس ساٹھ ستر اسی نوے سو ہزار لاکھ کروڑ آدھا آدھی دگنا پہلا پہلی دوسرا دوسری تیسرا
    """
)

DATES = _words(
    """
    january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec
    monday tuesday wednesday thursday friday saturday sunday
    today tomorrow yesterday tonight now

    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    lunes martes miércoles jueves viernes sábado domingo hoy mañana ayer ahora

    janvier février mars avril mai juin juillet août septembre octobre novembre décembre
    lundi mardi mercredi jeudi vendredi samedi dimanche aujourd'hui demain hier maintenant

    janeiro fevereiro março maio junho julho setembro outubro novembro dezembro
    segunda-feira terça terça-feira quarta quarta-feira quinta quinta-feira sexta sexta-feira
    hoje amanhã ontem agora

    januar jänner februar märz juni juli oktober dezember
    montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag heute morgen gestern jetzt

    январь января январе февраль февраля феврале март марта марте апрель апреля апреле май мая мае
    июнь июня июне июль июля июле август августа августе сентябрь сентября сентябре октябрь октября
    октябре ноябрь ноября ноябре декабрь декабря декабре
    понедельник понедельника вторник вторника среда среду среды четверг четверга пятница пятницу
    пятницы суббота субботу субботы воскресенье воскресенья сегодня завтра вчера сейчас

    जनवरी फ़रवरी फरवरी मार्च अप्रैल मई जून जुलाई अगस्त सितंबर सितम्बर अक्टूबर अक्तूबर नवंबर नवम्बर
    दिसंबर दिसम्बर सोमवार मंगलवार बुधवार गुरुवार शुक्रवार शनिवार रविवार आज कल परसों अभी

    জানুয়ারি জানুয়ারী ফেব্রুয়ারি ফেব্রুয়ারী মার্চ এপ্রিল মে জুন জুলাই আগস্ট সেপ্টেম্বর অক্টোবর নভেম্বর
    ডিসেম্বর সোমবার মঙ্গলবার বুধবার বৃহস্পতিবার শুক্রবার শনিবার রবিবার আজ আগামীকাল গতকাল কাল এখন

    يناير فبراير مارس أبريل إبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر
    الاثنين الإثنين الثلاثاء الأربعاء الخميس الجمعة السبت الأحد اليوم غدا أمس الآن

    جنوری فروری مارچ اپریل مئی جون جولائی اگست ستمبر اکتوبر نومبر دسمبر
    پیر منگل بدھ جمعرات جمعہ ہفتہ اتوار آج کل پرسوں ابھی
    """
)

NEGATIONS = _words(
    """
    not no never none nothing nobody nowhere neither nor without cannot

    ni nunca jamás nada nadie ninguno ninguna ningún sin tampoco

    ne pas jamais rien aucun aucune sans nul nulle non

    não nao jamais ninguém nenhum nenhuma nenhuns nenhumas sem nem tampouco

    nicht kein keine keinen keinem keiner keines nie niemals nichts niemand niemanden niemandem
    nirgends nirgendwo ohne weder nein

    не нет ни без никогда никто никого никому ничто ничего нигде никуда никак нельзя никакой никакая
    никакое никакие невозможно

    नहीं नही न ना मत बिना बगैर

    না নেই নয় নাই নি নহে বিনা ছাড়া নন নও নেন

    لا لم لن ليس ليست ليسوا لست لسنا بدون دون غير بلا أبدا عدم مش ولا فلا ولم ولن وليس
    بغير

    نہیں نہ مت بغیر بنا
    """
)

NEGATED = re.compile(r"n't$|নি$")
"""The end of a negated verb, in English and in Bengali."""

ELIDED = re.compile(r"(?:[cdjlmnst]|(?:jus|lors|puis)?qu)'")
"""French words that lose their vowel before the next: "n'est", "d'août", "qu'aucun"."""

IDEOGRAPHIC = re.compile(
    r"(?P<neither>非常|无论|無論|未来|未來|特别|特別|别人|別人|区别|區別|分别|分別|级别|性别|性別|不过|不過)"
    r"|(?P<number>[零〇一二三四五六七八九十百千万萬亿億两兩]{2,}|[零〇二三四五六七八九十百千万萬亿億两兩半双倍]"
    r"|(?:星期|礼拜|禮拜|周|週)[一二三四五六日天]|[月火水木金土日]曜|一[月日]"
    r"|[今明昨后後前][天日]|现在|現在|今夜|あした|きのう|きょう)"
    r"|(?P<negation>[不没沒无無非未别別勿莫否]|なかった|なければ|ない|なく|なし|ません|ずに)"
)
"""What counts in Chinese and Japanese, whose words have no spaces between them."""
