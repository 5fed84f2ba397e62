"""Thai words that mean an image, told from those that are only spelled with the same syllables.

Thai puts no spaces between words: ภาพ (image) is also how สุขภาพ (health) ends and ภาพยนตร์ (film) begins, and รูป
(picture) counts monks and names shapes. Every place of a syllable is looked at: it means an image unless a listed word
that means none covers it. This takes no dictionary and no tokenizer.

Not among the images: statues and Buddha images (พระพุทธรูป), shapes (รูปหัวใจ), figures of speech that have a word of
their own (ภาพลักษณ์, ภาพรวม), people and devices (ช่างภาพ, กล้องถ่ายรูป). Among them: ภาพ and รูป alone, whatever is meant.
"""

import re

_SYLLABLE = re.compile("ภาพ|รูป|จิตรกรรม")

_ENDS = {
    "ภาพ": tuple(
        """
        สุข คุณ ส สถาน มิตร เสรี อิสร ศักย สมรรถ ประสิทธิ เสถียร สันติ สัมพันธ สัมพันธ์ สัมพัทธ สวัสดิ สห สาร สุ บุคลิก
        บุคคลิก บูรณ มรณ ชีว กาย ทัศนีย ทุพพล ดุลย ดุษณี ตรีเอก เอก เอกัต ภราดร ภราตร วิสัญญี สมาชิก อัจฉริย อัต อาต มโน
        จินต จิต สุนทรีย านุ ชรา ปัจเจก กัมมันต คัมภีร สถาวร ทาส วิริย เจ้า จอ แผน แพร่ ช่าง นักถ่าย ช่างถ่าย กล้องถ่าย โทร
        """.split()
    ),
    "รูป": tuple(
        """
        พุทธ เทว พระ ปฏิ แปร สำเร็จ ฝัง ผิด เสีย เข้า รัด อภิ อนุ สา คง คืน ลด เปลี่ยน ก่อ ขึ้น หล่อ ปั้น แกะ ช่างถ่าย นักถ่าย
        กล้องถ่าย ฟิล์มถ่าย ฐานานุ พ้อง
        """.split()
    ),
}
"""What a word that means no image has before its last syllable: สุข of สุขภาพ."""
_BEGINS = {
    "ภาพ": "ยนตร์ ยนต์ ลักษณ์ พจน์ รวม ลวงตา หลอน มายา ันธ์".split(),  # the last of กุมภาพันธ์, February
    "รูป": """
        แบบ ร่าง ทรง ลักษณ์ ลักษณะ ธรรม พรรณ พรหม สมบัติ โฉม งาม หล่อ ปั้น แกะสลัก สลัก เคารพ สัณฐาน การณ์ คดี กาย หน้า ชี
        ฌาน ภพ ภูมิ ตัด นาม ประโยค คำ ศัพท์ สระ วรรณยุกต์ พยัญชนะ เหมือน เป็นร่าง ี ิยะ าวจร
    """.split(),
}
"""And behind its first one: ยนตร์ of ภาพยนตร์."""
_SHAPES = tuple(
    """
    กรวย กลม ดาว หัวใจ วงกลม วงรี รี ไข่ โค้ง เหลี่ยม สามเหลี่ยม สี่เหลี่ยม ห้าเหลี่ยม หกเหลี่ยม แปดเหลี่ยม หลายเหลี่ยม ครึ่งวงกลม
    พระจันทร์เสี้ยว จันทร์เสี้ยว กระบอก กากบาท เกลียว คลื่น พีระมิด ปิรามิด ลูกศร หยดน้ำ เพชร ถ้วย ระฆัง พัด จาน โดม ปีก เปลวไฟ
    ใบ กลีบ ดอก ตัว
    """.split()
)
"""What รูป before it makes a shape, unless somebody draws or takes it."""
_MADE = ("วาด", "ถ่าย", "เขียน", "ระบายสี", "ดู", "โพสต์", "อัด", "แขวน", "ส่ง")
_APART = {
    "ภาพรวม": ("ถึง", "ทั้ง", "กัน", "อยู่"),
    "รูปหน้า": ("วัด", "บ้าน", "ร้าน", "ปก"),
    "รูปตัว": ("เอง", "เขา", "เธอ", "ละคร"),
    "รูปใบ": ("นี้", "นั้น", "หนึ่ง", "เดียว", "แรก", "เก่า", "ใหญ่", "หน้า"),
}
"""What comes next where such a word only seems to stand there."""
_PHRASES = ("ในรูปของ",)
"""Phrases that mean no image: "in the form of"."""
_PHOTOGRAPHED = re.compile("ถ่าย(?!ทอด|โอน|เท)|วาด")
"""Behind ภาพ, it means an image whatever stands before: เอกสาร + ภาพถ่าย, though สารภาพ is to confess."""

# A monk is counted in รูป: พระสงฆ์ 9 รูป, ภิกษุสามรูป, พระรูปหนึ่ง.
_MONK = "(?:พระ|ภิกษุ|สงฆ์|สามเณร|เณร|นักบวช|เจ้าอาวาส|หลวงพ่อ)"
_NUMBER = r"(?:\d|หนึ่ง|สอง|สาม|สี่|ห้า|หก|เจ็ด|แปด|เก้า|สิบ|ร้อย|พัน|หลาย|ทุก|แต่ละ|บาง|กี่|สัก)"
_MONKS = re.compile(rf"{_MONK}[^\n.]{{0,40}}?{_NUMBER}\s*(รูป)|{_MONK}[^\n.]{{0,20}}?(รูป)(?:หนึ่ง|เดียว|นี้|นั้น|แรก|ใด|ไหน|ที่)")
_LONGEST = 16  # characters before a syllable that are looked at


def found(text: str) -> list[str]:
    """The words in a text that mean an image, as far as they can be told apart: the syllable, mostly."""
    if _SYLLABLE.search(text) is None:
        return []
    monks = {match.start(group) for match in _MONKS.finditer(text) for group in (1, 2)}
    return [
        match.group()
        for match in _SYLLABLE.finditer(text)
        if match.group() == "จิตรกรรม" or not (_covered(text, match) or match.start() in monks)
    ]


def _covered(text: str, match: re.Match) -> bool:
    """Whether a word that means no image covers a syllable."""
    syllable, start, end = match.group(), match.start(), match.end()
    before = text[max(0, start - _LONGEST) : start]
    if any(text.startswith(phrase, start - phrase.index(syllable)) for phrase in _PHRASES if syllable in phrase):
        return True
    if before.endswith(_ENDS[syllable]) and not (syllable == "ภาพ" and _PHOTOGRAPHED.match(text, end)):
        return True
    words = list(_BEGINS[syllable])
    if syllable == "รูป" and not before.endswith(_MADE):
        words += _SHAPES
    fitting = [word for word in words if text.startswith(word, end)]
    if not fitting:
        return False
    longest = max(fitting, key=len)
    return not text.startswith(_APART.get(syllable + longest, ("\0",)), end + len(longest))
