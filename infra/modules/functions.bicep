// The function app, on Flex Consumption.
param token string
param location string
param tags object
param identityId string
param clientId string
param blobEndpoint string
param queueEndpoint string
param deploymentContainer string
param queueName string
param redisUrl string
param openAiEndpoint string
param openAiApiVersion string
param modelDeployment string
param telemetryConnectionString string
param instanceMemoryMB int
param maximumInstanceCount int
param httpConcurrency int
param alwaysReadyHttp int
param alwaysReadyJobs int
@allowed([
  'RollingUpdate'
  'Recreate'
])
param siteUpdateStrategy string
param corsOrigins string
@secure()
param tokenKeys string
param sweepSchedule string
param chains string
param auth string
param jwtIssuer string
param jwtAudience string
param directStart string
param workerConcurrency string
param maxOwnerStreams string
param maxOwnerStartsPerMinute string
param maxQueueDepth string
param maxRunSeconds string
param maxOutputTokens string
param retentionSeconds string
@secure()
param webhookKeys string
param webhookHosts string
param webhookRetrySeconds string
param plansFile string
param maxOwnerTokensPerDay string
param maxOwnerTokensPerMinute string
param listMetadata string

// All HTTP functions scale as one group; each queue function on instances of its own.
var readyForHttp = alwaysReadyHttp > 0 ? [
  {
    name: 'http'
    instanceCount: alwaysReadyHttp
  }
] : []
var readyForJobs = alwaysReadyJobs > 0 ? [
  {
    name: 'function:holdfast_work'
    instanceCount: alwaysReadyJobs
  }
] : []

resource plan 'Microsoft.Web/serverfarms@2025-05-01' = {
  name: 'plan-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true // Linux
  }
}

resource app 'Microsoft.Web/sites@2025-05-01' = {
  name: 'func-${token}'
  location: location
  tags: union(tags, {
    'azd-service-name': 'gateway'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    functionAppConfig: {
      runtime: {
        name: 'python'
        version: '3.13'
      }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${blobEndpoint}${deploymentContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: concat(readyForHttp, readyForJobs)
        triggers: {
          http: {
            // Python's default is 1: every open event stream would hold an instance of its own.
            perInstanceConcurrency: httpConcurrency
          }
        }
      }
      // The platform's default, Recreate, kills what runs at each deployment.
      siteUpdateStrategy: {
        type: siteUpdateStrategy
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      // On Flex Consumption the host answers every preflight itself, by this list alone.
      cors: {
        allowedOrigins: empty(corsOrigins) ? [] : split(corsOrigins, ' ')
        supportCredentials: !empty(corsOrigins)
      }
      appSettings: [
        // the host's storage, and the jobs' queue
        { name: 'AzureWebJobsStorage__blobServiceUri', value: blobEndpoint }
        { name: 'AzureWebJobsStorage__queueServiceUri', value: queueEndpoint }
        { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
        { name: 'AzureWebJobsStorage__clientId', value: clientId }
        // the host's default page would stand where the product's is
        { name: 'AzureWebJobsDisableHomepage', value: 'true' }
        // which identity the product's own credentials use
        { name: 'AZURE_CLIENT_ID', value: clientId }
        { name: 'GATEWAY_QUEUE', value: 'azure-storage' }
        { name: 'GATEWAY_QUEUE_NAME', value: queueName }
        // read by the host from here, not from the product's default
        { name: 'GATEWAY_SWEEP_SCHEDULE', value: sweepSchedule }
        { name: 'GATEWAY_CORS_ORIGINS', value: corsOrigins }
        { name: 'GATEWAY_TOKEN_KEYS', value: tokenKeys }
        { name: 'REDIS_URL', value: redisUrl }
        { name: 'GATEWAY_REDIS_AUTH', value: 'entra' }
        { name: 'AZURE_OPENAI_ENDPOINT', value: openAiEndpoint }
        { name: 'OPENAI_API_VERSION', value: openAiApiVersion }
        { name: 'GATEWAY_MODEL', value: modelDeployment }
        { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: telemetryConnectionString }
        { name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING', value: 'ClientId=${clientId};Authorization=AAD' }
        { name: 'OTEL_SERVICE_NAME', value: 'holdfast' }
        // what may be chosen; an empty value is as none, and the product takes its default
        { name: 'GATEWAY_CHAINS', value: chains }
        { name: 'GATEWAY_AUTH', value: auth }
        { name: 'GATEWAY_JWT_ISSUER', value: jwtIssuer }
        { name: 'GATEWAY_JWT_AUDIENCE', value: jwtAudience }
        { name: 'GATEWAY_DIRECT_START', value: directStart }
        { name: 'GATEWAY_WORKER_CONCURRENCY', value: workerConcurrency }
        { name: 'GATEWAY_MAX_OWNER_STREAMS', value: maxOwnerStreams }
        { name: 'GATEWAY_MAX_OWNER_STARTS_PER_MINUTE', value: maxOwnerStartsPerMinute }
        { name: 'GATEWAY_MAX_QUEUE_DEPTH', value: maxQueueDepth }
        { name: 'GATEWAY_MAX_RUN_SECONDS', value: maxRunSeconds }
        { name: 'GATEWAY_MAX_OUTPUT_TOKENS', value: maxOutputTokens }
        { name: 'GATEWAY_RETENTION_SECONDS', value: retentionSeconds }
        { name: 'GATEWAY_WEBHOOK_KEYS', value: webhookKeys }
        { name: 'GATEWAY_WEBHOOK_HOSTS', value: webhookHosts }
        { name: 'GATEWAY_WEBHOOK_RETRY_SECONDS', value: webhookRetrySeconds }
        { name: 'GATEWAY_PLANS_FILE', value: plansFile }
        { name: 'GATEWAY_MAX_OWNER_TOKENS_PER_DAY', value: maxOwnerTokensPerDay }
        { name: 'GATEWAY_MAX_OWNER_TOKENS_PER_MINUTE', value: maxOwnerTokensPerMinute }
        { name: 'GATEWAY_LIST_METADATA', value: listMetadata }
      ]
    }
  }
}

// Deployment signs in with Entra. A user name and a password of the app's own would be a second door to its code.
resource scmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

resource ftpPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
