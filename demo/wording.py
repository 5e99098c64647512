"""Wording of the synthetic contracts in Portuguese and English; the generator picks one alternative of each part.

`{field}` is replaced by a generated value; in `[type|{field}]` that value is an entity of the type. Other dates,
amounts and names stand unmarked beside the entities, so that a pattern for dates or names alone finds wrong ones, too.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """One kind of contract in one language: alternative titles and preambles; clauses are (heading, alternatives)."""

    language: str
    titles: tuple[str, ...]
    preambles: tuple[str, ...]
    clauses: tuple[tuple[str, tuple[str, ...]], ...]


_EN_LAW = (
    "Governing law",
    (
        "This document and any dispute arising from it are governed by [governing_law|{law}].",
        "The parties submit to [governing_law|{law}]; conflict-of-law rules do not apply.",
        "[governing_law|{law_capital}] shall apply. The courts of {city} have jurisdiction.",
        "Any claim shall be construed under [governing_law|{law}] and settled by arbitration in {city}.",
    ),
)
_EN_LIABILITY = (
    "Liability",
    (
        "Neither party is liable for more than {other_amount} in any calendar year, fraud excepted.",
        "Insurance cover of at least {other_amount} is kept with {other_company} until {other_date}.",
        "A penalty of {other_amount} per week of delay may be claimed after {other_date}.",
    ),
)
_EN_NOTICES = (
    "Notices",
    (
        "Notices go to {person}, with a copy to {other_company}, and count from the day after receipt.",
        "{person} is the point of contact. The last review took place on {other_date}.",
        "Written notice addressed to {person} is effective three working days after {other_date} at the earliest.",
    ),
)
_PT_LAW = (
    "Lei aplicável",
    (
        "O presente documento rege-se pela [governing_law|{law}].",
        "Em tudo o que for omisso aplica-se a [governing_law|{law}], com exclusão de qualquer outra.",
        "As partes elegem o foro de {city} e sujeitam-se à [governing_law|{law}].",
        "Qualquer litígio será decidido nos termos da [governing_law|{law}] por tribunal arbitral com sede em {city}.",
    ),
)
_PT_LIABILITY = (
    "Responsabilidade",
    (
        "A responsabilidade de cada parte não excede {other_amount} por ano civil, salvo dolo.",
        "É mantido um seguro de {other_amount} junto de {other_company} até {other_date}.",
        "Por cada semana de atraso após {other_date} pode ser exigida uma penalidade de {other_amount}.",
    ),
)
_PT_NOTICES = (
    "Comunicações",
    (
        "As comunicações são dirigidas a {person}, com cópia para {other_company}.",
        "O interlocutor é {person}. A última reunião realizou-se em {other_date}.",
        "Considera-se recebida a comunicação a {person} no terceiro dia útil seguinte a {other_date}.",
    ),
)

WORDINGS = (
    Wording(
        "en",
        ("Statement of Work", "Statement of Work No. {number}", "Work Statement", "SOW {number}: {subject}"),
        (
            "This statement of work takes effect on [effective_date|{date}] between [party|{first}] (the Client) and "
            "[party|{second}] (the Supplier), following the proposal of {other_date}.",
            "[party|{second}] will perform the work below for [party|{first}]. Work starts on [effective_date|{date}]; "
            "the framework agreement of {other_date} stays in force.",
            "Client: [party|{first}]. Contractor: [party|{second}]. Prepared on {other_date}, valid as of "
            "[effective_date|{date}].",
        ),
        (
            (
                "Scope",
                (
                    "The Supplier delivers {subject}, in three stages, the first one by {other_date}.",
                    "The work covers {subject} at the site in {city}. {person} accepts each deliverable.",
                ),
            ),
            (
                "Price",
                (
                    "The fixed price for all work is [contract_value|{amount}], {other_amount} of it at once.",
                    "The Client pays [contract_value|{amount}] in total. Travel up to {other_amount} is paid apart.",
                    "Fees amount to [contract_value|{amount}]; a discount of {other_amount} was deducted already.",
                ),
            ),
            (
                "Term",
                (
                    "The work lasts [term|{duration}] and may be paused for no longer than {other_duration}.",
                    "This statement runs for [term|{duration}]. Notice of {other_duration} ends it early.",
                ),
            ),
            _EN_LAW,
            _EN_LIABILITY,
            _EN_NOTICES,
        ),
    ),
    Wording(
        "en",
        ("Change Request", "Change Request {number}", "Contract Change Notice", "Variation Order {number}"),
        (
            "[party|{first}] and [party|{second}] change the agreement signed on {other_date}. The change applies from "
            "[effective_date|{date}].",
            "Requested by {person} on {other_date} on behalf of [party|{first}]; accepted by [party|{second}] with "
            "effect from [effective_date|{date}].",
            "As of [effective_date|{date}], the contract of {other_date} between [party|{first}] and "
            "[party|{second}] is amended as follows.",
        ),
        (
            (
                "Change",
                (
                    "Instead of {other_subject}, the Supplier delivers {subject}.",
                    "{subject_capital} is added to the scope. Everything else stays as agreed on {other_date}.",
                ),
            ),
            (
                "Price",
                (
                    "The price rises from {other_amount} to [contract_value|{amount}].",
                    "The new total is [contract_value|{amount}]; before the change it was {other_amount}.",
                    "In place of {other_amount}, the Client now owes [contract_value|{amount}].",
                ),
            ),
            _EN_LAW,
            _EN_NOTICES,
            _EN_LIABILITY,
        ),
    ),
    Wording(
        "pt",
        ("Contrato de Prestação de Serviços", "Caderno de Trabalhos n.º {number}", "Ordem de Serviço {number}"),
        (
            "Entre [party|{first}], adiante Cliente, e [party|{second}], adiante Prestador, é celebrado o presente "
            "contrato, que produz efeitos a partir de [effective_date|{date}], na sequência da proposta de "
            "{other_date}.",
            "[party|{second}] presta a [party|{first}] os serviços aqui descritos, com início em "
            "[effective_date|{date}]. O acordo-quadro de {other_date} mantém-se em vigor.",
            "Cliente: [party|{first}]. Prestador: [party|{second}]. Elaborado em {other_date}; vigora desde "
            "[effective_date|{date}].",
        ),
        (
            (
                "Objeto",
                (
                    "O Prestador entrega {subject}, em três fases, a primeira até {other_date}.",
                    "Os trabalhos abrangem {subject} nas instalações de {city}. {person} aprova cada entrega.",
                ),
            ),
            (
                "Preço",
                (
                    "O preço global é de [contract_value|{amount}], dos quais {other_amount} se vencem de imediato.",
                    "O Cliente paga [contract_value|{amount}] no total; as deslocações, até {other_amount}, à parte.",
                    "Os honorários ascendem a [contract_value|{amount}], já deduzido o desconto de {other_amount}.",
                ),
            ),
            (
                "Prazo",
                (
                    "O contrato vigora por [term|{duration}], podendo suspender-se por {other_duration} no máximo.",
                    "A execução dura [term|{duration}]. A denúncia exige um aviso prévio de {other_duration}.",
                ),
            ),
            _PT_LAW,
            _PT_LIABILITY,
            _PT_NOTICES,
        ),
    ),
    Wording(
        "en",
        ("Subscription Order", "Order Form {number}", "Software Subscription Order", "Subscription Agreement"),
        (
            "[party|{first}] orders the following subscription from [party|{second}]. The subscription begins on "
            "[effective_date|{date}]; the quote of {other_date} is part of it.",
            "Subscriber [party|{first}], provider [party|{second}]. Ordered by {person} on {other_date}, active from "
            "[effective_date|{date}].",
        ),
        (
            (
                "Service",
                (
                    "The provider makes {subject} available around the clock, maintenance on {other_date} excepted.",
                    "The subscription covers {subject} for the offices in {city}.",
                ),
            ),
            (
                "Fees",
                (
                    "The annual fee is [contract_value|{amount}]. Set-up costs of {other_amount} are waived.",
                    "For the whole term [contract_value|{amount}] is charged; each further seat costs {other_amount}.",
                ),
            ),
            (
                "Term and renewal",
                (
                    "The initial term is [term|{duration}]; it renews unless notice of {other_duration} is given.",
                    "Subscribed for [term|{duration}], with a trial of {other_duration} before.",
                ),
            ),
            _EN_LAW,
            _EN_NOTICES,
        ),
    ),
    Wording(
        "pt",
        ("Acordo de Confidencialidade", "Acordo de Não Divulgação", "Compromisso de Sigilo n.º {number}"),
        (
            "[party|{first}] e [party|{second}] pretendem trocar informação sobre {subject} e acordam, com efeitos a "
            "[effective_date|{date}], o seguinte. As conversações começaram em {other_date}.",
            "O presente acordo, assinado em {other_date} por {person}, entra em vigor em [effective_date|{date}] e "
            "obriga [party|{first}] e [party|{second}].",
        ),
        (
            (
                "Sigilo",
                (
                    "A informação não é revelada a terceiros, nem mesmo a {other_company}, sem consentimento escrito.",
                    "Só {person} e quem dela precise conhece a informação; tudo é devolvido até {other_date}.",
                ),
            ),
            (
                "Duração",
                (
                    "O dever de sigilo dura [term|{duration}]; as cópias são destruídas em {other_duration}.",
                    "O acordo vigora por [term|{duration}]. A devolução faz-se no prazo de {other_duration}.",
                ),
            ),
            _PT_LAW,
            _PT_LIABILITY,
            _PT_NOTICES,
        ),
    ),
    Wording(
        "en",
        ("Non-Disclosure Agreement", "Mutual Non-Disclosure Agreement", "Confidentiality Agreement"),
        (
            "[party|{first}] and [party|{second}] wish to exchange information on {subject}. This agreement binds both "
            "from [effective_date|{date}]; talks began on {other_date}.",
            "Signed by {person} on {other_date}, this agreement between [party|{first}] and [party|{second}] enters "
            "into force on [effective_date|{date}].",
        ),
        (
            (
                "Secrecy",
                (
                    "Information is not passed on, not even to {other_company}, without written consent.",
                    "Only {person} and those who need it see the information; all of it is returned by {other_date}.",
                ),
            ),
            (
                "Duration",
                (
                    "The duty of secrecy lasts [term|{duration}]; copies are destroyed within {other_duration}.",
                    "This agreement stays in force for [term|{duration}], return of papers within {other_duration}.",
                ),
            ),
            _EN_LAW,
            _EN_LIABILITY,
            _EN_NOTICES,
        ),
    ),
    Wording(
        "pt",
        ("Pedido de Alteração", "Aditamento ao Contrato n.º {number}", "Adenda Contratual {number}"),
        (
            "[party|{first}] e [party|{second}] alteram o contrato assinado em {other_date}. A alteração aplica-se a "
            "partir de [effective_date|{date}].",
            "A pedido de {person}, de {other_date}, [party|{first}] e [party|{second}] aditam o contrato, com efeitos "
            "desde [effective_date|{date}].",
        ),
        (
            (
                "Alteração",
                (
                    "Em vez de {other_subject}, o Prestador entrega {subject}.",
                    "{subject_capital} passa a integrar o objeto. O mais mantém-se como acordado em {other_date}.",
                ),
            ),
            (
                "Preço",
                (
                    "O preço passa de {other_amount} para [contract_value|{amount}].",
                    "O novo total é de [contract_value|{amount}]; antes da alteração era de {other_amount}.",
                ),
            ),
            _PT_LAW,
            _PT_NOTICES,
            _PT_LIABILITY,
        ),
    ),
    Wording(
        "pt",
        ("Encomenda de Subscrição", "Formulário de Encomenda {number}", "Contrato de Subscrição"),
        (
            "[party|{first}] subscreve junto de [party|{second}] o serviço abaixo. A subscrição inicia-se em "
            "[effective_date|{date}], segundo o orçamento de {other_date}.",
            "Subscritor: [party|{first}]. Fornecedor: [party|{second}]. Encomendado por {person} em {other_date}, "
            "ativo desde [effective_date|{date}].",
        ),
        (
            (
                "Serviço",
                (
                    "O fornecedor disponibiliza {subject}, salvo na manutenção de {other_date}.",
                    "A subscrição abrange {subject} para os escritórios de {city}.",
                ),
            ),
            (
                "Mensalidades",
                (
                    "O valor anual é de [contract_value|{amount}]. A instalação, de {other_amount}, é oferecida.",
                    "Por todo o prazo cobra-se [contract_value|{amount}]; cada utilizador a mais custa {other_amount}.",
                ),
            ),
            (
                "Prazo e renovação",
                (
                    "O prazo inicial é de [term|{duration}] e renova-se salvo aviso de {other_duration}.",
                    "Subscrito por [term|{duration}], após um ensaio de {other_duration}.",
                ),
            ),
            _PT_LAW,
            _PT_NOTICES,
        ),
    ),
)
