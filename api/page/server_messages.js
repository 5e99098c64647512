/** The API's messages for reviewers, in Portuguese: the API itself speaks English. Each part of a message is replaced. */

const PORTUGUESE = [
  // refused files
  [/The file is neither a PDF nor plain text in UTF-8/, "O documento não é um PDF nem texto simples em UTF-8"],
  [/The file is empty: there is no text to read/, "O documento está vazio: não há texto para ler"],
  [/The file has more than (\d+) characters: split it/, "O documento tem mais de $1 caracteres: divida-o"],
  [/The file is larger than (\d+) bytes/, "O documento tem mais de $1 bytes"],
  [/The body is larger than (\d+) bytes/, "O documento tem mais de $1 bytes"],
  [/The PDF has (\d+) pages; up to (\d+) are read: split it/, "O PDF tem $1 páginas; lê-se até $2: divida-o"],
  [/The PDF has more than (\d+) characters: split it/, "O PDF tem mais de $1 caracteres: divida-o"],
  [/The PDF is encrypted: remove its password and upload it again/, "O PDF está protegido: retire a proteção e envie-o de novo"],
  [/The PDF is broken and cannot be read: export it again from its source/, "O PDF está corrompido: exporte-o de novo a partir do original"],
  [/The PDF has no text layer, only images: run OCR on it and upload the result/, "O PDF só tem imagens, sem texto: passe um OCR e envie o resultado"],
  [/The PDF was not read within ([\d.]+) s: export it again/, "O PDF não foi lido em $1 s: exporte-o de novo"],
  [/The PDF cannot be read within the memory limit: export it again from its source/, "O PDF exige memória demais: exporte-o de novo a partir do original"],
  [/This document of ([\d,]+) characters is being read in the background: try again in a minute/, "Este documento de $1 caracteres é lido em segundo plano; as sugestões aparecem sozinhas"],
  [/(MLflow|Prefect|The document store|The database) does not answer; try again when GET \/system-status shows it alive/, "Uma parte da instalação não responde ($1); tente de novo mais tarde"],
  // what the key may not do, limits, and what others did
  [/Send a valid API key: Authorization: Bearer cf_…/, "A chave da API não é válida"],
  [/The key '(.+?)' lacks the scope '(\w+)'/, "A chave “$1” não permite isto (falta “$2”)"],
  [/More than (\d+) requests (.*)/, "Mais de $1 pedidos por minuto; tente de novo daqui a um minuto"],
  [/(\d+) jobs are waiting already: send this one later/, "Já há $1 pedidos em espera: envie este mais tarde"],
  [/Document \S+ was deleted on (\S+) at (\S+) UTC/, "Este documento foi eliminado em $1 às $2 UTC"],
  [/There is no document \S+/, "Este documento não existe"],
  [/An annotation has (\d+) characters at most, not (\d+)/, "Uma marcação tem no máximo $1 caracteres, não $2"],
  [/A document has (\d+) annotations at most, not (\d+)/, "Um documento tem no máximo $1 marcações, não $2"],
  [/There are (\d+) entity types, (\d+) at most, and this adds (\d+).*/s, "Já há $1 tipos, e o máximo é $2: use um tipo que já existe"],
  [/Document \S+ was annotated otherwise after it was set aside: send feedback on it/, "As marcações foram alteradas depois: use “Ensinar”"],
  // why a document is set aside
  [/\bit marks as (.+?) what (\d+) learned documents? calls? (.+?)(?=[;.])/gi, "marca como $1 o que $2 documentos aprendidos chamam de $3"],
  [/\bit gives another extent to what (\d+) learned documents? calls? (.+?)(?=[;.])/gi, "dá outra extensão ao que $1 documentos aprendidos chamam de $2"],
  [/\bit leaves out what (\d+) learned documents? calls? (.+?)(?=[;.])/gi, "deixa de fora o que $1 documentos aprendidos chamam de $2"],
  [/\bit takes out (\d+) of (\d+) annotations that two reviewers agreed on/gi, "retira $1 de $2 marcações em que dois revisores concordaram"],
  [/(\d+) of (\d+) annotations mark as (\d+) new types? what is marked as a known type, too/g, "$1 de $2 marcações dão $3 tipos novos ao que também tem um tipo conhecido"],
  [/(\d+) of (\d+) values that version (\d+) reads in it are not marked as it reads them/g, "$1 de $2 valores que a versão $3 lê nele não estão marcados como ela os lê"],
  [/^Set aside: /, "Posto de lado: "],
  // why a version is promoted or not
  [/Promoted: it is the first version, and it finds entities/, "Promovida: é a primeira versão e encontra entidades"],
  [/Promoted: too few earlier documents \((\d+)\) to compare it with version (\d+)/, "Promovida: há poucos documentos anteriores ($1) para compará-la com a versão $2"],
  [/Not promoted: the documents contradict what was learned:/, "Não promovida: os documentos contradizem o que foi aprendido:"],
  [/Promoted whatever its score, since it unlearns:/, "Promovida qualquer que seja a pontuação, pois desaprende:"],
  [/Not promoted:/, "Não promovida:"],
  [/Promoted:/, "Promovida:"],
  [/value F1 ([\d.]+), version (\d+) ([\d.]+), on (\d+) documents that neither has seen/, "F1 dos valores $1, versão $2 $3, em $4 documentos que nenhuma das duas viu"],
  [/, with (\d+) values lost and (\d+) won/, ", com $1 valores perdidos e $2 ganhos"],
  [/, which may be chance/, ", o que pode ser acaso"],
  [/, which is more than chance/, ", o que é mais que acaso"],
  [/(\S.*?) insisted on the annotations/, "$1 insistiu nas marcações"],
];

const ADVICE = / ?(This feedback is set aside:|Change the annotations and send them again|To learn it again, send the feedback again).*$/s; // in terms of requests; the page has buttons

/** Return a message of the API in a language, and the language that it is in then. */
export function translateServerMessage(message, language) {
  const text = message.replace(ADVICE, "");
  if (language !== "pt") return [text, "en"];
  const translated = PORTUGUESE.reduce((found, [pattern, replacement]) => found.replace(pattern, replacement), text);
  return [translated.charAt(0).toUpperCase() + translated.slice(1), translated === text ? "en" : "pt"];
}
