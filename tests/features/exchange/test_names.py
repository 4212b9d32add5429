"""Names of columns in files of other applications, in ten languages, and dates in these files."""

from datetime import date

import pytest

from contacts_api.features.exchange.columns import UNKNOWN, Column, Header
from contacts_api.features.exchange.dates import order_shown, read_date

TODAY = date(2026, 11, 29)

KNOWN = {
    ("phone", ""): """
        Tel. No. | Phone No. | Contact Number | Telefonnr. | Tel.-Nr. | N° de téléphone | Nr tel. | Numer | Тел. |
        Телефони | Контактний телефон | Контактный телефон | Телефоны | Telefoonnr.
    """,
    ("phone", "mobile"): """
        Cellular | Mobile No. | Mobilnummer | Mobiltelefonnummer | Handy-Nr. | Tel. mobil | GSM | Tél. portable
        | Tel. móvil | Teléfono celular | Número de móvil | Numero di cellulare | Tel. kom. | Tel. komórkowy |
        Мобільний номер | Моб. | Моб. тел. | Сотовый | Телефон мобільний | Телефон переносной | Mobil-Tel.-Nr.
    """,
    ("phone", "home"): """
        Landline | Festnetz | Fixe | Tél. fixe | Fijo | Teléfono fijo | Fisso | Telefono fisso | Telefone fixo |
        Telefone residencial | Telefone fixo/residencial | Городской телефон | Vaste telefoon | Particular |
        Abitazione 2 | Telefone da residência | Телефон дом. 2 | Teléfono domicilio
    """,
    ("phone", "work"): """
        Festnetz geschäftlich | Telefono aziendale | Службовий телефон | Служебный телефон | Ufficio | Telefone
        da empresa | Телефон (раб.)
    """,
    ("phone", "work mobile"): "GSM Arbeit",
    ("phone", "callback"): "Callback",
    ("phone", "isdn"): "ISDN",
    ("phone", "tty"): "TTY/TDD Phone",
    ("phone", "day"): "Day phone",
    ("phone", "evening"): "Evening phone",
    ("phone", "whatsapp"): "WhatsApp",
    ("phone", "fax"): "Fax No. | Faks | Numer faksu | Номер факсу",
    ("phone", "home fax"): "Home Fax | Fax privat",
    ("phone", "work fax"): "Business Fax | Факс рабочий",
    ("phone", "main"): "Primäre Rufnummer | Основний телефон | Telefon główny | Teléfono principal",
    ("full_name", ""): """
        Contact person | Last name, First name | Ansprechpartner | Kontaktperson | Kontakt | Vor- und Nachname |
        Name, Vorname | Nachname, Vorname | Nom prénom | Nom et prénom | Prénom nom | Prénom et nom | Nombre y
        apellidos | Persona de contacto | Nome e cognome | Cognome e nome | Referente | Contatto | Nome e
        sobrenome | Contato | Nazwisko i imię | Imię, nazwisko | Osoba kontaktowa | Прізвище та ім'я | Прізвище
        ім’я по батькові | Відображуване ім'я | Контактна особа | Имя и фамилия | Фамилия Имя Отчество |
        Отображаемое имя | Контактное лицо | Contactpersoon | Voor- en achternaam | Nom complet de l'adresse de
        messagerie 2 | Nombre de pantalla de correo electrónico | Коротке ім'я ел. пошти
    """,
    ("last_name", ""): "Segundo apellido | Apellido materno | Apellido paterno | Apellido 1 | Apellido 2",
    ("email", ""): """
        Emails | Email ID | Contact Email | Mél | Messagerie | Dirección de correo | Імейл | Е-мейл | Ел. адреса
        | Имейл | Е-mail | Электронный адрес | Адрес эл. почты | Adresse de courrier | Endereço do correio
        electrónico 2 | Адреса ел. пошти | Адреса 2 ел. пошти
    """,
    ("email", "home"): "E-mail perso | Личная почта | Poczta prywatna",
    ("email", "work"): "E-mail pro | Mail aziendale | Робоча пошта | Рабочая почта | Poczta służbowa",
    ("email", "other"): "Sekundäre E-Mail-Adresse",
    ("email", "main"): "Correo principal | Indirizzo email principale",
    ("date_of_birth", ""): """
        Geb. | Geb. am | Geb.-Datum | Geboren am | Née le | Date naissance | Date de naiss. | Fecha de nac. |
        Fecha nac. | Fecha nacimiento | F. nacimiento | Fecha de cumpleaños | Data nascita | Nato il | Nata il |
        Nato/a il | Data de aniversário | Nasc. | Data nasc. | Data ur. | Д.н. | Д.р. | Др | Дата рожд. | Рождение
    """,
    ("birth_year", ""): """
        Year of birth | Geburtsjahr | Année de naissance | Año de nacimiento | Anno di nascita | Ano de nascimento |
        Rok urodzenia | Рік народження | Год рождения | Geboortejaar
    """,
    ("birth_month", ""): """
        Geburtsmonat | Mois de naissance | Mes de nacimiento | Mese di nascita | Mês de nascimento |
        Miesiąc urodzenia | Місяць народження | Месяц рождения | Geboortemaand
    """,
    ("birth_day", ""): """
        Jour de naissance | Día de nacimiento | Giorno di nascita | Dia de nascimento | Dzień urodzenia | Geboortedag
    """,
    ("address", ""): """
        Zip/Postal Code | State/Province | Hausnummer | Straße und Hausnummer | Wohnort | PLZ/Ort | Kanton |
        Postanschrift | CP | Localidad | Población | Comune | Nazione | CEP | Bairro | Miejscowość | Регіон |
        Населений пункт | Адреса проживання | Регион | Населённый пункт | Адрес проживания | Huisnummer | Straatnaam
    """,
    ("address", "home"): """
        Adresse personnelle | Adresse privée | Домашня адреса | Домашний адрес | Pays/Région (domicile) | País o
        región del domicilio | Indirizzo (ab.) - Casella postale | Indirizzo abitazione | Rua da residência (2)
        | Adres domowy - kraj/region | Поштова скринька (дом. адреса) | Huisadres, straat
    """,
    ("address", "work"): """
        Adresse professionnelle | Zakelijke straat | Dép/Région (bureau) | Apartado postal de la dirección del
        trabajo | Via (uff.) 2 | Caixa postal do endereço comercial | Індекс (роб. адреса) | Страна или регион
        (раб. адрес) | Werkadres, postbusnummer
    """,
    ("labels", ""): """
        Stichwörter | Schlagwörter | Étiquettes | Mots-clés | Etiqueta | Marcadores | Теги | Categorieën
    """,
    ("url", ""): "Web | WWW | Page web | Sito | Página da Web | Webpagina",
    ("additional_info", ""): "Memo | Info | Hinweis | Hinweise | Commento | Observação | Опис | Описание",
    ("organization", ""): """
        Firmenname | Arbeitgeber | Raison sociale | Ragione sociale | Nazwa firmy | Місце роботи | Место работы
        | Bedrijfsnaam | Werkgever | Nom de l'entreprise | Nombre de la empresa | Nome azienda | Nome da empresa
        | Назва компанії | Naam bedrijf
    """,
    ("title", ""): "Métier | Ruolo | Função",
    ("relation", "spouse"): "Wife | Husband",
    ("relation", "parent"): "Mother | Father",
    ("account", "facebook"): "Facebook",
    ("account", "telegram"): "Telegram",
    ("account", "viber"): "Viber",
    ("account", "instagram"): "Instagram",
    ("account", "signal"): "Signal",
    ("not_kept", ""): """
        Picture | Foto | Bild | Priorité | Prioridad | Priorità | Initiales | Iniciales | Iniziali | Inicjały |
        Riservatezza | Prioridade | Priorytet | Ініціали | Важность | Gevoeligheid
    """,
    ("phone", "assistant"): """
        Téléphone de l'assistant(e) | Telefono assistente | Telefone do assistente | Телефон помічника
    """,
    ("phone", "car"): """
        Téléphone (voiture) | Telefono auto | Telefone do carro | Telefon w samochodzie | Телефон в машине
    """,
    ("phone", "radio"): "Radio téléphone | Radioteléfono | Radiotelefoon",
    ("phone", "pager"): "Récepteur de radiomessagerie | Cercapersone",
    ("phone", "company"): "Téléphone société | Telefon Firma | Główny telefon do firmy | Hoofdtelefoon bedrijf",
    ("phone", "other"): "Autre téléphone | Otro teléfono | Altro telefono | Andere telefoon",
    ("phone", "other fax"): "Télécopie (autre) | Altro fax | Andere fax",
    ("address", "other"): """
        Other Address | Otra calle | Otro país o región | Altra via | Rua do outro endereço | Inny adres -
        kraj/region | Вулиця (інша адреса) | Улица (другой адрес) | Ander adres, straat | Land/regio (anders)
    """,
    ("relation", "manager"): "Responsable | Nome manager | Керівник | Руководитель | Naam manager",
    ("relation", "assistant"): "Nom de l'assistant(e) | Nome do assistente | Имя помощника | Naam assistent",
    ("date", "anniversary"): "Anniversaire de mariage ou fête | Datas especiais | Speciale datum",
}
# Unknown names. Some of them begin or end like a known name, or contain a word of one.
NOT_KNOWN = """
    Country Code | Created At | Created | Created Date | Updated At | Last Contact | Last Contacted |
    Last Activity Date | Last Modified Date | Number of employees | Number of Associated Deals | Tax number |
    Tax ID | VAT number | Customer No | Customer Number | Customer ID | Contact ID | Contact Owner |
    Contact Unworked | Contact Source | Contact Status | Record ID | Account ID | Account Number | Company Size |
    Company ID | Company domain name | Company Registration | Webinar | Webinar Date | Webhook | Web score |
    Information source | Info source | Additional information | Information | Kundennummer | Kundennr. |
    Mitgliedsnummer | Personalnummer | Steuernummer | Kontonummer | Kontaktquelle | Kontaktdatum |
    Letzter Kontakt | Kontaktart | Kontakt-ID | Kontakte | Lead Source | Lead Status | Lifecycle Stage | Industry |
    Annual Revenue | Time Zone | Timezone | Language | Preferred Language | Age | Alter |
    Sprache | Nationality | Nationalität | Staatsangehörigkeit | Geburtsort | Geburtsname |
    Geburtsland | Familienstand | Marital Status | Number of children | Lieu de naissance | Nom de naissance |
    Lugar de nacimiento | Luogo di nascita | Comune di nascita | Nazione di nascita | Local de nascimento |
    Miejsce urodzenia | Місце народження | Место рождения | Geboorteplaats | Place of Birth | Country of birth |
    Mother's maiden name | Grandmother | Grandfather | Stepfather | Brother | Sister | Godmother | Fatherland |
    Nato | NATO code | Nasce | Genre       | Вік | Возраст | Leeftijd | Edad |
    Età | Idade | Wiek | Âge | NIP | PESEL | REGON | ІПН | ІНН | ИНН | КПП | ОГРН | СНИЛС | Паспорт |
    Серия и номер паспорта | Номер паспорта | Номер договора | Номер клієнта | Номер замовлення | Номер заказа |
    Numer klienta | Numer zamówienia | Numer faktury | Numer konta | Numer PESEL | Nr klienta | Número de cliente |
    Número de empleados | Numéro client | Numéro SIRET | Numero cliente | Numero ordini | Codice fiscale |
    Codice cliente | Partita IVA | P. IVA | Klantnummer | Bestelnummer | Aantal medewerkers | Fixed costs | Fix |
    Fixkosten | Fixum | Festnetzanbieter | Order Date | Order ID | Orders | Total Spent | Signal strength |
    Signalwort | Status | State of relationship | Stage | Score | Rating | Rank | Revenue | Salary |
    Salutation formula | Shipping method | Shipping Name | Subscribed | Opt-in | Opt-out | Unsubscribed | Consent |
    GDPR | Consent date | Accepts Marketing | Newsletter | Newsletter opt-in | Mailing list | Email opt-in |
    Email status | Email bounced | Email valid | Email count | Emails sent | Emails opened | Phone valid |
    Phone status | Phone country | Phone extension | Phone calls | Telefonzeiten | Telefonate | Telefonnotiz |
    Mobile app | Mobile app version | Mobile operator | Mobilitätsgrad | Mobilität | Mobility | Cell count |
    Cellular plan | GSM operator | Fax status | Faxen | Contactless | Contact type id | Contactmoment |
    Laatste contact | Contactgegevens | Contacted | Contacto | Datos de contacto | Dernier contact |
    Date de contact | Date de création | Date d'inscription | Date d'adhésion | Date d'embauche | Fecha de alta |
    Fecha de creación | Fecha de baja | Data rejestracji | Data utworzenia | Data iscrizione | Data assunzione |
    Data de cadastro | Data de admissão | Дата створення | Дата регистрации | Дата создания | Дата договора |
    Дата | Eintrittsdatum | Austrittsdatum | Erstellt am | Geändert am | Geplant | Gebühr | Gebäude | Gebiet |
    Datum | Latitude | Longitude | Lat | Coordinates | Building | Floor | Room | Raum | Zimmer | Etage |
    Stockwerk | Hausarzt | Hausnotruf | Hausverwaltung | Regional manager | Regionalleiter | Территория | CPF |
    CNPJ | CPA | CEO | CPU | Cepage | Comunero | Localización | Población total | Kantonsrat | Wohnortwechsel |
    Bildung | Bildungsgrad | Fotograf | Fotos | Photographer | Picture URL | Avatar | Image | Profile picture |
    Priority level | Prioritätsstufe | Rollen | Ruoli | Funktionär | Funcionario | Funzione | Metier level |
    Arbeitgeberanteil | Firmennummer | Firmenbuchnummer | Ragione | Raison | Motif | Memory | Memo date |
    Hinweisgeber | Opisanie | Описание заказа | Описание товара | Commento cliente | Tags count | Теги заказа |
    Stichwortverzeichnis | Etiquette | Marcador | Categoriecode | Facebook Ads | Facebook ID | Telegram ID |
    Instagram followers | Viber status | Husbandry | Wifehood | Referenz | Referente ID | Referenzen | Referral |
    Referred by | Referral source | Contattato | Contador | Contabilidad | Drużyna | Другое | Дрон | Днi |
    Geburtstagsgruß | Rok szkolny | Rok produkcji | Год выпуска | Рік випуску | Année scolaire | Año escolar |
    Anno accademico | Ano letivo | Schuljahr | Jahrgang | Year | Month | Day | Monat | Jahr | Tage | Mois | Mes |
    Mese | Maand | Miesiąc | Месяц | Місяць | Principal | Principal amount | Primary key | Primary contact |
    Primary Source | Primaria | Principale | Основной | Główny | Personal ID | Personnelle | Privée | Zakelijke |
    Рабочая группа | Рабочая неделя | Рабочий день | Робочий день | Робоча група | Личная карта |
    Особистий кабінет | Домашняя страница | Домашнее животное | Pets | Haustier | Hobby | Hobbies | Interessen |
    Interests | Loisirs | Blood type | T-shirt size | Dietary requirements | Membership type | Membership number |
    Member since | Bank | IBAN | BIC | Payment method | Currency | Price | Discount | Invoice number |
    Passport number | Social security number | Driver's license | License plate | Serial number | Room number |
    Seat number | Ticket number | House number | Flat | Apartment | Suite | Unit | Extension | Ext | Durchwahl |
    UID | GUID | Index | Row | No | Nr | Nr. | N° | Lp. | № | No. | Lfd. Nr. | Position in list | Source |
    Campaign | UTM source | Device | Browser | IP address | MAC address | Wallet address | Email domain | Domain |
    Username | Login | Password | User ID | Owner | Assigned to | Team | Branch | Division | Cost center |
    Kostenstelle | Manager ID | Reports to | Start date | End date | Hire date | Due date | Next activity | Deal |
    Amount | Quantity | Регион тип | Контактная особа тип | Tipo | Tipo de contato | Company info | Other info |
    Work info | Numer domu | Numer mieszkania | Region manager | Prefix number | Emergency contact |
    Emergency phone | Next of kin | Guardian | School | Class | Grade | Teacher | Parent company | Parent account |
    Rückmeldung
"""


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split("|")]


def column(name: str) -> Column:
    return Header([name], {}).columns[0]


@pytest.mark.parametrize(
    ("name", "meaning", "label"),
    [(name, meaning, label) for (meaning, label), text in KNOWN.items() for name in names(text)],
)
def test_a_column_is_known_in_ten_languages(name: str, meaning: str, label: str) -> None:
    found = column(name)

    assert (found.meaning, found.label, found.is_label) == (meaning, label, False)


def test_a_column_that_only_looks_like_a_known_one_stays_unknown() -> None:
    assert [name for name in names(NOT_KNOWN) if column(name).meaning != UNKNOWN] == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("12.04.1985 г.", "1985-04-12"),
        ("12.04.1985 р.", "1985-04-12"),
        ("12.04.1985г", "1985-04-12"),
        ("12 апреля 1985 года", "1985-04-12"),
        ("пт, 12 апр. 1985 г.", "1985-04-12"),
        ("12 квітня 1985 року", "1985-04-12"),
        ("п'ятниця, 12 квітня 1985 р.", "1985-04-12"),
        ("12 kwietnia 1985 r.", "1985-04-12"),
        ("12. Apr. 1985", "1985-04-12"),
        ("Freitag, den 12. April 1985", "1985-04-12"),
        ("Freitag, 12. April 1985", "1985-04-12"),
        ("12.Mrz.1985", "1985-03-12"),
        ("1er avril 1985", "1985-04-01"),
        ("mar. 12 avril 1985", "1985-04-12"),
        ("mar 12, 1985", "1985-03-12"),
        ("viernes, 12 de abril de 1985", "1985-04-12"),
        ("venerdì 12 aprile 1985", "1985-04-12"),
        ("sexta-feira, 12 de abril de 1985", "1985-04-12"),
        ("vrijdag 12 april 1985", "1985-04-12"),
        ("Friday, April 12, 1985", "1985-04-12"),
        ("Fri, 12 Apr 1985", "1985-04-12"),
        ("the 12th of April 1985", "1985-04-12"),
        ("Fri Apr 12 00:00:00 CEST 1985", "1985-04-12"),
        ("1985. 04. 12.", "1985-04-12"),
        ("1985年4月12日", "1985-04-12"),
        ("4月12日", "--04-12"),
        ("12–04–1985", "1985-04-12"),
        ("12\u202f04\u202f1985", "1985-04-12"),
        ("12\u00a0апреля\u00a01985\u00a0г.", "1985-04-12"),
        ("0/0/0", ""),
        ("4/12/0", "--12-04"),
        ("Friday 12", None),
        ("Friday 1985", None),
        ("1.2.3", None),
    ],
)
def test_a_date_is_read_as_people_write_it(written: str, expected: str | None) -> None:
    assert read_date(written, "dmy", TODAY) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("29.11.26", "2026-11-29"), ("30.11.26", "1926-11-30"), ("25.12.26", "1926-12-25"), ("1.1.27", "1927-01-01")],
)
def test_a_year_of_two_digits_makes_the_last_such_date(written: str, expected: str) -> None:
    assert read_date(written, "dmy", TODAY) == expected


@pytest.mark.parametrize(
    ("written", "order"), [("25–12–1985", "dmy"), ("12/25/1985 г.", "mdy"), ("3.4.1985 р.", "both"), ("4月12日", None)]
)
def test_a_date_shows_its_order_whatever_stands_around_it(written: str, order: str | None) -> None:
    assert order_shown(written) == order
