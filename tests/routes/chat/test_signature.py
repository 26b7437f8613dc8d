"""Questions that must not share an answer have different signatures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.routes.chat.signature import signature_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who won in 2019?", "Who won in 2020?"),
        ("What is 12% of 80?", "What is 12% of 90?"),
        ("Convert 1,000 euros", "Convert 1,500 euros"),
        ("a flight for two people", "a flight for three people"),
        ("from 3 to 5", "from 5 to 3"),
        ("Is it open on Monday?", "Is it open on Tuesday?"),
        ("the weather in May", "the weather in June"),
        ("What happened yesterday?", "What happened?"),
        ("Is it safe?", "Is it not safe?"),
        ("Should I go?", "Shouldn't I go?"),
        ("Can I pay?", "Can\u2019t I pay?"),
        ("with sugar", "without sugar"),
        ('Translate "cat"', 'Translate "dog"'),
        ("Translate “cat”", "Translate “dog”"),
        ("What does 'break' do?", "What does 'continue' do?"),
        ("Explain `map`", "Explain `filter`"),
        ("Fix ```x = 1```", "Fix ```x = y```"),
        ("What is os.path?", "What is os.walk?"),
        ("Use snake_case", "Use another_case"),
        ("iPhone X v3.1", "iPhone X v3.2"),
        ("What does --force do?", "What does --quiet do?"),
        ("Read /etc/hosts", "Read /etc/passwd"),
        ("Write to a@example.org", "Write to b@example.org"),
        # Numbers, dates and negations of the languages that are covered.
        ("2019年谁赢了？", "2020年谁赢了？"),
        ("两个人的票多少钱", "三个人的票多少钱"),
        ("星期一开门吗", "星期二开门吗"),
        ("一月的天气", "二月的天气"),
        ("这个安全吗？", "这个不安全吗？"),
        ("我去过北京", "我没去过北京"),
        ("भारत २०१९ में कौन जीता?", "भारत २०२० में कौन जीता?"),
        ("दो लोगों के लिए टिकट", "तीन लोगों के लिए टिकट"),
        ("क्या यह सुरक्षित है?", "क्या यह सुरक्षित नहीं है?"),
        ("सोमवार को खुला है?", "मंगलवार को खुला है?"),
        ("¿Es seguro?", "¿No es seguro?"),
        ("con azúcar", "sin azúcar"),
        ("un vuelo para dos", "un vuelo para tres"),
        ("¿Abren el miércoles?", "¿Abren el jueves?"),
        ("من فاز في ٢٠١٩؟", "من فاز في ٢٠٢٠؟"),
        ("هل هذا آمن؟", "هل هذا ليس آمنا؟"),
        ("مع سكر", "بدون سكر"),
        ("تذكرة لثلاثة أشخاص خمسة", "تذكرة لثلاثة أشخاص ستة"),
        ("C'est sûr ?", "Ce n'est pas sûr ?"),
        ("avec sucre", "sans sucre"),
        ("le premier d'août", "le premier d'avril"),
        ("un billet pour deux", "un billet pour trois"),
        ("২০১৯ সালে কে জিতেছে?", "২০২০ সালে কে জিতেছে?"),
        ("এটা কি নিরাপদ?", "এটা কি নিরাপদ নয়?"),
        ("আমি করেছি", "আমি করিনি"),
        ("É seguro?", "Não é seguro?"),
        ("com açúcar", "sem açúcar"),
        ("aberto na terça", "aberto na quarta"),
        ("Это безопасно?", "Это не безопасно?"),
        ("с сахаром", "без сахара"),
        ("билет на двоих в среду", "билет на двоих в пятницу"),
        ("کیا یہ محفوظ ہے؟", "کیا یہ محفوظ نہیں ہے؟"),
        ("دو لوگوں کے لیے", "تین لوگوں کے لیے"),
        ("۲۰۱۹ میں کون جیتا", "۲۰۲۰ میں کون جیتا"),
        ("Ist das sicher?", "Ist das nicht sicher?"),
        ("ein Zimmer für zwei", "ein Zimmer für drei"),
        ("mit Zucker", "ohne Zucker"),
        ("安全ですか", "安全ではないですか"),
        ("食べます", "食べません"),
        ("月曜日に開いていますか", "火曜日に開いていますか"),
        # Quotes of other scripts.
        ("「猫」を訳して", "「犬」を訳して"),
        ("Was heißt „Katze“?", "Was heißt „Hund“?"),
        ("Traduis « chat »", "Traduis « chien »"),
        ("《红楼梦》讲什么", "《西游记》讲什么"),
        ("What is ½ of it?", "What is ¼ of it?"),
    ],
)
def test_what_differs_in_a_number_a_date_a_negation_a_quote_or_code(one, other):
    assert signature_of(one) != signature_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "how can I reset the password"),
        ("Who won in 2019?", "In 2019, who won?"),
        ("Is it not safe?", "It isn't safe, is it?"),
        ("Don't I pay?", "Don\u2019t I pay?"),
        ("It's my brother's car", "my brother's car, that is"),
        ('Translate "cat"', "Translate “cat” please"),
        ("What costs 1,000 euros?", "what does 1000 euros buy?"),
        ("من فاز في ٢٠١٩؟", "في 2019، من فاز؟"),
        ("２０１９年谁赢了", "谁在2019年赢了？"),
        ("我怎么重置密码？", "如何重置我的密码"),
        ("非常好的电影有哪些", "有哪些好电影"),
        ("Où est-ce ?", "C'est où ?"),
        ("هَلْ هٰذَا آمِن", "هل هذا آمن"),
        ("Wie geht das?", "wie geht DAS"),
    ],
)
def test_other_wordings_share_a_signature(one, other):
    assert signature_of(one) == signature_of(other)


@given(st.text(max_size=200))
def test_any_text_has_one(text):
    assert signature_of(text) == signature_of(text)
