// Checks the infrastructure without Azure: node infra/check/check.mjs [project folder]. Prints what is wrong and a summary;
// exits 1 if something is.

import { fileURLToPath } from 'node:url'
import { checkAzureYaml, checkManual, checkParameters, checkRoutes, checkSettings } from './agreement.mjs'
import { checkCompiler, compiler } from './compiler.mjs'
import { checkModules, checkNames, checkSyntax, checkUnused } from './names.mjs'
import { load } from './project.mjs'
import { checkRules, rules } from './rules.mjs'
import { checkTypes } from './types.mjs'

/** The checks by name, in order. */
export const checks = {
  'syntax': checkSyntax,
  'names': checkNames,
  'unused names': checkUnused,
  'modules': checkModules,
  'parameters file': checkParameters,
  'handler settings': checkSettings,
  'routes': checkRoutes,
  'azure.yaml': checkAzureYaml,
  'docs/deploy.md': checkManual,
  [`${Object.keys(rules).length} rules`]: checkRules,
  'resource types': checkTypes,
  'compiler': checkCompiler,
}

function main(root) {
  const project = load(root)
  const absent = {
    'resource types': project.types ? '' : 'NOT RUN: there is no ../shared/bicep-types, nor a folder that BICEP_TYPES names',
    'compiler': compiler(root) ? '' : 'NOT RUN: there is no bicep on PATH, in BICEP, or in ../shared/tools; az bicep install gets one',
  }
  let failed = 0
  for (const [name, check] of Object.entries(checks)) {
    if (absent[name]) {
      console.log(`${name}: ${absent[name]}`)
      continue
    }
    const findings = check(project)
    console.log(`${name}: ${findings.length === 0 ? 'ok' : `${findings.length} wrong`}`)
    for (const { where, message } of findings) {
      console.log(`  ${where}: ${message}`)
    }
    failed += findings.length
  }
  console.log(failed === 0 ? `The infrastructure is as it must be: ${project.files.length} files, ${project.resources.length} resources.` : `${failed} things are wrong.`)
  return failed === 0 ? 0 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = main(process.argv[2] ?? fileURLToPath(new URL('../..', import.meta.url)))
}
